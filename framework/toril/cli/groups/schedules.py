"""`toril schedule …`: job schedulers, those that an application declares and all others."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from toril.cli.common import CommonOptions, QueueName, QueueNames, YesOption, run_command, with_common_options

schedules = typer.Typer(
    name="schedule", help="Look at schedules; run, pause and remove them; compare them with the code.", no_args_is_help=True
)

ScheduleId: TypeAlias = Annotated[str, typer.Argument(help="The schedule's id.", metavar="ID", show_default=False)]


@schedules.command("ls")
@with_common_options
def ls(common: CommonOptions, names: QueueNames = None) -> None:
    """List the schedules of all queues, or of these, by their next run."""
    from toril.cli.schedules import list_schedules

    run_command(common, lambda session: list_schedules(session, names or []))


@schedules.command("run")
@with_common_options
def run(common: CommonOptions, queue: QueueName, schedule: ScheduleId) -> None:
    """Run a schedule's job once more, now. Its next run stays as it is."""
    from toril.cli.schedules import run_schedule

    run_command(common, lambda session: run_schedule(session, queue, schedule))


@schedules.command("pause")
@with_common_options
def pause(common: CommonOptions, queue: QueueName, schedule: ScheduleId) -> None:
    """Let a schedule rest until it is resumed; deploys leave it so. A run that is under way goes on."""
    from toril.cli.schedules import pause_schedule

    run_command(common, lambda session: pause_schedule(session, queue, schedule))


@schedules.command("resume")
@with_common_options
def resume(common: CommonOptions, queue: QueueName, schedule: ScheduleId) -> None:
    """Let a paused schedule go on."""
    from toril.cli.schedules import resume_schedule

    run_command(common, lambda session: resume_schedule(session, queue, schedule))


@schedules.command("rm")
@with_common_options
def rm(common: CommonOptions, queue: QueueName, schedule: ScheduleId, yes: YesOption = False) -> None:
    """Remove a schedule. One that an application declares comes back when that starts next: pause it instead."""
    from toril.cli.schedules import remove_schedule

    run_command(common, lambda session: remove_schedule(session, queue, schedule, yes=yes))


@schedules.command("diff")
@with_common_options
def diff(common: CommonOptions) -> None:
    """Compare what the application declares with what the server has; code 1 if they differ. Needs --app."""
    from toril.cli.schedules import compare_schedules

    run_command(common, compare_schedules)
