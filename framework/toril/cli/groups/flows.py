"""`toril flow …`: jobs that wait for others."""

from __future__ import annotations

from typing import Annotated

import typer

from toril.cli.common import CommonOptions, QueueName, run_command, with_common_options

flows = typer.Typer(name="flow", help="Look at flows.", no_args_is_help=True)


@flows.callback()
def flow() -> None:
    """Look at flows: jobs that wait for others, their children."""


@flows.command("show")
@with_common_options
def show(
    common: CommonOptions,
    queue: QueueName,
    job_id: Annotated[str, typer.Argument(help="The id of any job of the flow.", metavar="ID", show_default=False)],
    root: Annotated[bool, typer.Option("--root", help="From the root of its flow on, not from this job.")] = False,
    depth: Annotated[int, typer.Option("--depth", min=1, help="How many levels.")] = 10,
    children: Annotated[int, typer.Option("--children", min=1, max=1000, help="How many children of each job.")] = 20,
) -> None:
    """Show a job and those that it waits or waited for, as a tree."""
    from toril.cli.flows import show_flow

    run_command(common, lambda session: show_flow(session, queue, job_id, root=root, depth=depth, children=children))
