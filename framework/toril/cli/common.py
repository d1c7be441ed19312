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

QueueName: TypeAlias = Annotated[str, typer.Argument(help="The queue's name.", show_default=False)]
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


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, for typer, the options of `CommonOptions` besides its own; it gets them as its first argument."""
    hints = get_type_hints(CommonOptions, include_extras=True)
    common = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(CommonOptions)
    ]
    own_hints = get_type_hints(command, include_extras=True, localns={"CommonOptions": CommonOptions})
    _, *own = [
        one.replace(annotation=own_hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in inspect.signature(command).parameters.values()
    ]

    def call(**given: Any) -> None:  # noqa: ANN401 -- whatever the command's own parameters are
        options = CommonOptions(**{one.name: given.pop(one.name) for one in common})
        command(options, **given)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {one.name: one.annotation for one in (*own, *common)}
    call.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    return call


def run_command(common: CommonOptions, work: Callable[[Session], Awaitable[int | None]]) -> NoReturn:
    """Connect, do the work, and end the process with the code that it returns (None: 0), or that of its error."""
    from toril.cli.session import run_session

    raise typer.Exit(run_session(common, work))
