"""What all commands that look at queues or operate them take: how to connect, and how to answer.

A command names its own parameters, and gets these as one object, its first argument:

    @queues.command("pause")
    @with_common_options
    def pause(common: CommonOptions, queue: QueueName) -> None:
        from toril.cli.queues import pause          # the framework is imported only where a command runs
        run_command(common, lambda session: pause(session, queue))
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias, get_type_hints

import typer

if TYPE_CHECKING:
    from toril.cli.session import Session


def complete_queue(context: typer.Context, incomplete: str) -> list[str]:
    """For a shell: names of queues that begin so."""
    from toril.cli.completing import queues_to_choose_from

    typed = context.params
    common = CommonOptions(app=typed.get("app"), redis_url=typed.get("redis_url"), prefix=typed.get("prefix"))
    return queues_to_choose_from(common, incomplete)


QueueName: TypeAlias = Annotated[str, typer.Argument(help="The queue's name.", show_default=False, autocompletion=complete_queue)]
QueueNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(help="Names of queues.", metavar="[QUEUE]...", show_default=False, autocompletion=complete_queue),
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
DryRunOption: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommonOptions:
    """The options that each of these commands has."""

    app: Annotated[
        str | None,
        typer.Option("--app", "-a", help="The application's root module, as in app.main:AppModule. (else: $TORIL_APP)", metavar="MODULE"),
    ] = None
    redis_url: Annotated[
        str | None,
        typer.Option("--redis-url", help="Instead of a module: where the server is. (else: $REDIS_URL)", metavar="URL"),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", help="Without a module: what the queues' keys begin with; bull by default. (else: $TORIL_PREFIX)"),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterOptions:
    """The options that say which jobs of a queue."""

    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", "-s", help="waiting, active, delayed, prioritized, waiting-children, completed, failed; several with commas."
        ),
    ] = None
    name: Annotated[str | None, typer.Option("--name", "-n", help="Their name; * and ? stand for anything.")] = None
    older_than: Annotated[str | None, typer.Option("--older-than", help="Ended (or, if they have not, added) longer ago, as in 1h.")] = None
    newer_than: Annotated[str | None, typer.Option("--newer-than", help="Ended (or, if they have not, added) since, as in 10m.")] = None
    error: Annotated[str | None, typer.Option("--error", help="What stands in the text of their last error.")] = None
    where: Annotated[
        list[str] | None, typer.Option("--where", "-w", help="What stands in their data, as in data.user.id=7; also opts.… and result.…")
    ] = None
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Not more than so many.")] = None

    @property
    def are_any(self) -> bool:
        """Whether anything was said."""
        return any(getattr(self, one.name) is not None for one in fields(self))


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, for typer, the fields of each of its parameters that is such a class as options of their own."""
    hints = get_type_hints(command, include_extras=True, localns={"CommonOptions": CommonOptions, "FilterOptions": FilterOptions})
    groups = {name: kind for name, kind in hints.items() if kind in (CommonOptions, FilterOptions)}
    parameters = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in inspect.signature(command).parameters.values()
        if one.name not in groups
    ]
    for kind in reversed(groups.values()):  # those that all commands have come last
        kind_hints = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=kind_hints[one.name])
            for one in fields(kind)
        ]

    def call(**given: Any) -> None:  # noqa: ANN401 -- whatever the command's own parameters are
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def run_command(common: CommonOptions, work: Callable[[Session], Awaitable[int | None]]) -> NoReturn:
    """Connect, do the work, and end the process with the code that it returns (None: 0), or that of its error."""
    from toril.cli.session import run_session

    raise typer.Exit(run_session(common, work))
