"""`toril job …`: looks at jobs and operates them, one by one or all that a filter finds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from toril.cli.common import CommonOptions, DryRunOption, FilterOptions, QueueName, YesOption, run_command, with_common_options

jobs = typer.Typer(
    name="job", help="Look at jobs; add, retry, promote, cancel and remove them; find out why one doesn't run.", no_args_is_help=True
)

JobId: TypeAlias = Annotated[str, typer.Argument(help="The job's id.", metavar="ID", show_default=False)]
JobIds: TypeAlias = Annotated[list[str] | None, typer.Argument(help="Ids of jobs.", metavar="[ID]...", show_default=False)]
AllOption: TypeAlias = Annotated[bool, typer.Option("--all", help="Instead of ids: all jobs that the filters find.")]


@jobs.command("ls")
@with_common_options
def ls(common: CommonOptions, filters: FilterOptions, queue: QueueName) -> None:
    """List jobs of a queue: 20, unless --limit says otherwise."""
    from toril.cli.jobs import list_jobs

    run_command(common, lambda session: list_jobs(session, queue, filters))


@jobs.command("show")
@with_common_options
def show(common: CommonOptions, queue: QueueName, job_id: JobId) -> None:
    """Show one job with all that is known of it."""
    from toril.cli.jobs import show_job

    run_command(common, lambda session: show_job(session, queue, job_id))


@jobs.command("logs")
@with_common_options
def logs(
    common: CommonOptions,
    queue: QueueName,
    job_id: JobId,
    tail: Annotated[int | None, typer.Option("--tail", min=1, help="Only so many rows, the newest.")] = None,
) -> None:
    """Show the log that its handler has written."""
    from toril.cli.jobs import show_logs

    run_command(common, lambda session: show_logs(session, queue, job_id, tail))


@jobs.command("explain")
@with_common_options
def explain(common: CommonOptions, queue: QueueName, job_id: JobId) -> None:
    """Say in words why a job doesn't run, or what has become of it, and what to do."""
    from toril.cli.explain import explain_job

    run_command(common, lambda session: explain_job(session, queue, job_id))


@jobs.command("debug")
@with_common_options
def debug(
    common: CommonOptions,
    queue: QueueName,
    job_id: JobId,
    debugger: Annotated[bool, typer.Option("--pdb", help="If it fails, look around in Python's debugger where it did.")] = False,
) -> None:
    """Run a job's data through the handler on this machine, on a server of its own; the stored job is only read. Needs --app."""
    from toril.cli.debugging import run_debug

    raise typer.Exit(run_debug(common, queue, job_id, use_debugger=debugger))


@jobs.command("add")
@with_common_options
def add(
    common: CommonOptions,
    queue: QueueName,
    name: Annotated[str, typer.Argument(help="The job's name.", show_default=False)],
    data: Annotated[str, typer.Argument(help="Its data as JSON; - reads it from standard input.")] = "{}",
    job_id: Annotated[str | None, typer.Option("--id", help="Its id, if it is to have one of its own.")] = None,
    delay: Annotated[str | None, typer.Option("--delay", help="How long it waits before it runs, as in 5m.")] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", min=0, help="1 runs first; without one it runs before all that have one.")
    ] = None,
    attempts: Annotated[int | None, typer.Option("--attempts", min=1, help="How often it may be tried.")] = None,
    wait: Annotated[str | None, typer.Option("--wait", help="Wait so long for its result, and show it.")] = None,
    new_queue: Annotated[bool, typer.Option("--new-queue", help="The queue may be one that doesn't exist yet.")] = False,
) -> None:
    """Add a job. With an application, its data must fit what the handler takes."""
    from toril.cli.jobs import NewJobRequest, add_job

    request = NewJobRequest(
        queue, name, data, {"job_id": job_id, "delay": delay, "priority": priority, "attempts": attempts}, wait, new_queue
    )
    run_command(common, lambda session: add_job(session, request))


@jobs.command("retry")
@with_common_options
def retry(
    common: CommonOptions,
    filters: FilterOptions,
    queue: QueueName,
    ids: JobIds = None,
    everything: AllOption = False,
    reset_attempts: Annotated[bool, typer.Option("--reset-attempts", help="Give them all of their attempts again.")] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Run failed jobs once more (or completed ones: --state completed)."""
    from toril.cli.bulk import Bulk, retrying

    bulk = Bulk(retrying(reset_attempts=reset_attempts), queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run)
    run_command(common, bulk.run)


@jobs.command("promote")
@with_common_options
def promote(
    common: CommonOptions,
    filters: FilterOptions,
    queue: QueueName,
    ids: JobIds = None,
    everything: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Let delayed jobs run now."""
    from toril.cli.bulk import Bulk, promoting

    run_command(common, Bulk(promoting(), queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run).run)


@jobs.command("cancel")
@with_common_options
def cancel(
    common: CommonOptions,
    filters: FilterOptions,
    queue: QueueName,
    ids: JobIds = None,
    everything: AllOption = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the job's error.")] = "on request",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Cancel jobs: those that wait fail at once, running ones are told to stop, and then fail. Nothing retries them."""
    from toril.cli.bulk import Bulk, cancelling

    bulk = Bulk(cancelling(reason), queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run)
    run_command(common, bulk.run)


@jobs.command("rm")
@with_common_options
def rm(
    common: CommonOptions,
    filters: FilterOptions,
    queue: QueueName,
    ids: JobIds = None,
    everything: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove jobs with all that belongs to them. Running ones stay."""
    from toril.cli.bulk import REMOVING, Bulk

    run_command(common, Bulk(REMOVING, queue, ids or [], filters, everything=everything, yes=yes, dry_run=dry_run).run)
