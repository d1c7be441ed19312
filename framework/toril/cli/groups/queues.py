"""`toril queue …`: looks at queues and operates them."""

from __future__ import annotations

from typing import Annotated

import typer

from toril.cli.common import CommonOptions, DryRunOption, QueueName, QueueNames, YesOption, run_command, with_common_options

queues = typer.Typer(name="queue", help="Look at queues; pause, drain, clean and limit them.", no_args_is_help=True)


@queues.command("ls")
@with_common_options
def ls(common: CommonOptions, names: QueueNames = None) -> None:
    """List queues, with how many jobs are in which state."""
    from toril.cli.queues import list_queues

    run_command(common, lambda session: list_queues(session, names or []))


@queues.command("show")
@with_common_options
def show(common: CommonOptions, queue: QueueName) -> None:
    """Show one queue: counts, pause, limits, workers, since when its next job waits."""
    from toril.cli.queues import show_queue

    run_command(common, lambda session: show_queue(session, queue))


@queues.command("pause")
@with_common_options
def pause(
    common: CommonOptions, names: QueueNames = None, everything: Annotated[bool, typer.Option("--all", help="All queues.")] = False
) -> None:
    """Stop all workers of these queues from claiming jobs; running jobs go on, adding goes on."""
    from toril.cli.queue_work import set_paused

    run_command(common, lambda session: set_paused(session, names or [], everything=everything, paused=True))


@queues.command("resume")
@with_common_options
def resume(
    common: CommonOptions, names: QueueNames = None, everything: Annotated[bool, typer.Option("--all", help="All queues.")] = False
) -> None:
    """Let workers claim jobs again."""
    from toril.cli.queue_work import set_paused

    run_command(common, lambda session: set_paused(session, names or [], everything=everything, paused=False))


@queues.command("drain")
@with_common_options
def drain(
    common: CommonOptions,
    queue: QueueName,
    delayed: Annotated[bool, typer.Option("--delayed", help="Also the jobs that wait for their time.")] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove all jobs that wait. Running and ended ones stay."""
    from toril.cli.queue_work import drain

    run_command(common, lambda session: drain(session, queue, delayed=delayed, yes=yes, dry_run=dry_run))


@queues.command("clean")
@with_common_options
def clean(
    common: CommonOptions,
    queue: QueueName,
    older_than: Annotated[
        str, typer.Option("--older-than", help="How long ago they must have ended (others: been added), as in 7d; 0s: all.")
    ],
    state: Annotated[str, typer.Option("--state", help="Which jobs.")] = "completed",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Not more than so many, the oldest first.")] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove old jobs of one state, in steps of 1,000: interrupted, and run again, it goes on with the rest."""
    from toril.cli.queue_work import clean

    run_command(common, lambda session: clean(session, queue, state, older_than, limit, yes=yes, dry_run=dry_run))


@queues.command("obliterate")
@with_common_options
def obliterate(
    common: CommonOptions,
    queue: QueueName,
    force: Annotated[bool, typer.Option("--force", help="Also if jobs run.")] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove a queue with all that belongs to it: jobs, events, schedules, settings. It is paused first."""
    from toril.cli.queue_work import obliterate

    run_command(common, lambda session: obliterate(session, queue, force=force, yes=yes, dry_run=dry_run))


@queues.command("orphans")
@with_common_options
def orphans(
    common: CommonOptions,
    queue: QueueName,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them all, with what belongs to them.")] = False,
    yes: YesOption = False,
) -> None:
    """Find jobs that are in no state, which nobody will run or list: somebody has deleted keys, or the server has evicted some."""
    from toril.cli.orphans import show_orphans

    run_command(common, lambda session: show_orphans(session, queue, remove=remove, yes=yes))


@queues.command("limits")
@with_common_options
def limits(
    common: CommonOptions,
    queue: QueueName,
    concurrency: Annotated[str | None, typer.Option("--concurrency", help="Jobs at once over the whole fleet; none: no limit.")] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Jobs in a time over the whole fleet, as in 10/1s; none: no limit.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Let workers claim at once where the rate is used up.")] = False,
) -> None:
    """Show what bounds the work on a queue over the whole fleet, or change it."""
    from toril.cli.queue_work import set_limits

    run_command(common, lambda session: set_limits(session, queue, concurrency, rate, reset=reset))
