"""Only dispatches: each command lives in a file of its own, and the framework is imported inside commands, so `--help` is quick.

Exit codes: 0 all went well, a stop by a signal included · 1 it failed while running · 2 wrong usage, settings or modules ·
3 the server can't be used · 4 handlers would not end at stop · 130 Ctrl-C while modules were still being imported.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="toril",
    help="Workers for queues on BullMQ's Redis protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from toril.cli.version import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def toril(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the versions of Toril, Python and what is underneath."
        ),
    ] = False,
) -> None:
    """Workers for queues on BullMQ's Redis protocol."""


@app.command()
def worker(
    module: Annotated[str, typer.Argument(help="The root module, as in app.main:AppModule.")],
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs at the same time, for every queue.")] = None,
    queues: Annotated[str | None, typer.Option(help="Only these queues, separated by commas.")] = None,
    roles: Annotated[str | None, typer.Option(help="Of producer, worker, scheduler, separated by commas; all by default.")] = None,
    shutdown_timeout: Annotated[str | None, typer.Option(help="For running jobs at stop, as in 25s.")] = None,
    connect_timeout: Annotated[str | None, typer.Option(help="For the server at start, as in 30s.")] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when nothing is left to run now.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors at start.")] = False,
) -> None:
    """Run the workers of an application until Ctrl-C or SIGTERM."""
    from toril.cli.worker import WorkerCommand, run_worker

    names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    if names == []:
        raise typer.BadParameter("name at least one queue, or leave it out for all", param_hint="--queues")
    parts = None if roles is None else [role.strip() for role in roles.split(",") if role.strip()]
    command = WorkerCommand(module, concurrency, names, parts, shutdown_timeout, connect_timeout, burst=burst, debug=debug)
    sys.exit(run_worker(command))


def main() -> None:
    """The entry point."""
    app()
