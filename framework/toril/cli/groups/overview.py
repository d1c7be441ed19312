"""`toril workers`, `toril stats` and `toril check`: what goes on over all queues."""

from __future__ import annotations

from typing import Annotated

import typer

from toril.cli.common import CommonOptions, QueueNames, run_command, with_common_options

overview = typer.Typer()


@overview.command()
@with_common_options
def workers(common: CommonOptions, names: QueueNames = None) -> None:
    """List the workers of all queues, or of these: where they run, which jobs they handle, how many they run."""
    from toril.cli.workers import list_workers

    run_command(common, lambda session: list_workers(session, names or []))


@overview.command()
@with_common_options
def stats(
    common: CommonOptions,
    names: QueueNames = None,
    watch: Annotated[
        float | None, typer.Option("--watch", min=0.2, help="Show it again every so many seconds, until Ctrl-C.", metavar="SECONDS")
    ] = None,
) -> None:
    """Show how fast queues are worked on: ended jobs a minute, how long jobs wait and run, how long the next one waits."""
    from toril.cli.stats import show_stats

    run_command(common, lambda session: show_stats(session, names or [], watch))


@overview.command()
@with_common_options
def check(
    common: CommonOptions,
    names: QueueNames = None,
    max_waiting: Annotated[int | None, typer.Option("--max-waiting", min=0, help="How many jobs may wait in a queue.")] = None,
    max_age: Annotated[str | None, typer.Option("--max-age", help="How long its next job may have been waiting, as in 10m.")] = None,
    max_failed: Annotated[int | None, typer.Option("--max-failed", min=0, help="How many failed jobs it may hold.")] = None,
    min_workers: Annotated[int | None, typer.Option("--min-workers", min=1, help="How many workers must be connected to it.")] = None,
    not_paused: Annotated[bool, typer.Option("--not-paused", help="It must not be paused.")] = False,
    handled: Annotated[bool, typer.Option("--handled", help="A running worker must handle the jobs that are next.")] = False,
) -> None:
    """For monitoring: code 1 if one of these limits is passed, 3 if the server can't be used. Whatever else may be wrong: toril doctor."""
    from toril.cli.check import Limits, check_queues

    limits = Limits(
        max_waiting=max_waiting,
        max_age=max_age,
        max_failed=max_failed,
        min_workers=min_workers,
        not_paused=not_paused,
        handled=handled,
    )
    run_command(common, lambda session: check_queues(session, names or [], limits))
