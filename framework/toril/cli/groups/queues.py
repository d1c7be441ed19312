"""`toril queue …`: looks at queues and operates them."""

from __future__ import annotations

from typing import Annotated

import typer

from toril.cli.common import CommonOptions, QueueName, run_command, with_common_options

queues = typer.Typer(name="queue", help="Look at queues, pause, drain and clean them.", no_args_is_help=True)


@queues.command("ls")
@with_common_options
def ls(
    common: CommonOptions, names: Annotated[list[str] | None, typer.Argument(help="Only these queues.", metavar="[QUEUE]...")] = None
) -> None:
    """List queues, with how many jobs are in which state."""
    from toril.cli.queues import list_queues

    run_command(common, lambda session: list_queues(session, names or []))


@queues.command("show")
@with_common_options
def show(common: CommonOptions, queue: QueueName) -> None:
    """Show one queue: counts, pause, limits, workers, the oldest waiting job."""
    from toril.cli.queues import show_queue

    run_command(common, lambda session: show_queue(session, queue))
