"""`toril dlq …`: the letters about jobs that failed for good."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from toril.cli.common import CommonOptions, DryRunOption, FilterOptions, YesOption, complete_queue, run_command, with_common_options

letters = typer.Typer(name="dlq", help="Dead letters: look at them, run their jobs again, throw them away.", no_args_is_help=True)

LetterQueue: TypeAlias = Annotated[
    str, typer.Argument(help="The queue of dead letters.", metavar="QUEUE", show_default=False, autocompletion=complete_queue)
]
LetterIds: TypeAlias = Annotated[list[str] | None, typer.Argument(help="Ids of letters.", metavar="[ID]...", show_default=False)]
Origin: TypeAlias = Annotated[
    str | None, typer.Option("--from", help="Only letters about jobs of this queue.", metavar="QUEUE", autocompletion=complete_queue)
]
JobName: TypeAlias = Annotated[str | None, typer.Option("--name", "-n", help="Only letters about jobs of this name.")]
ErrorText: TypeAlias = Annotated[str | None, typer.Option("--error", help="Only letters in whose error this stands.")]
OlderThan: TypeAlias = Annotated[str | None, typer.Option("--older-than", help="Only letters that were written so long ago, as in 7d.")]
AllOption: TypeAlias = Annotated[bool, typer.Option("--all", help="Instead of ids: all letters that the filters find.")]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", min=1, help="Not more than so many, the oldest first.")]


def _filters(origin: str | None, name: str | None, error: str | None, older_than: str | None, limit: int | None) -> FilterOptions:
    """What stands in letters, as filters of jobs."""
    given = (("data.originalJob.queue=", origin), ("data.originalJob.name=", name), ("data.error.message~=", error))
    where = [f"{path}{value}" for path, value in given if value is not None]
    return FilterOptions(where=where or None, older_than=older_than, limit=limit)


@letters.command("ls")
@with_common_options
def ls(
    common: CommonOptions,
    queue: LetterQueue,
    origin: Origin = None,
    name: JobName = None,
    error: ErrorText = None,
    older_than: OlderThan = None,
    limit: Limit = None,
) -> None:
    """List letters, the oldest first: 20, unless --limit says otherwise."""
    from toril.cli.letters import list_letters

    run_command(common, lambda session: list_letters(session, queue, _filters(origin, name, error, older_than, limit)))


@letters.command("replay")
@with_common_options
def replay(
    common: CommonOptions,
    queue: LetterQueue,
    ids: LetterIds = None,
    everything: AllOption = False,
    origin: Origin = None,
    name: JobName = None,
    error: ErrorText = None,
    older_than: OlderThan = None,
    limit: Limit = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Put jobs back into their queues, with all of their attempts, and take their letters away."""
    from toril.cli.bulk import Bulk
    from toril.cli.letters import REPLAYING

    filters = _filters(origin, name, error, older_than, limit)
    run_command(common, Bulk(REPLAYING, queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run).run)


@letters.command("purge")
@with_common_options
def purge(
    common: CommonOptions,
    queue: LetterQueue,
    ids: LetterIds = None,
    everything: AllOption = False,
    origin: Origin = None,
    name: JobName = None,
    error: ErrorText = None,
    older_than: OlderThan = None,
    limit: Limit = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove letters for good."""
    from toril.cli.bulk import Bulk
    from toril.cli.letters import PURGING

    filters = _filters(origin, name, error, older_than, limit)
    run_command(common, Bulk(PURGING, queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run).run)
