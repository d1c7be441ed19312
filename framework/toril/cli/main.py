"""Only dispatches: each command lives in a file of its own, and the framework is imported inside commands, so `--help` is quick.

Help is plain text: what draws it in boxes would take longer to import than all the rest. `exit_codes.py` tells how commands end.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from toril.cli.common import CommonOptions, complete_queue, run_command, with_common_options
from toril.cli.groups.flows import flows
from toril.cli.groups.jobs import jobs
from toril.cli.groups.letters import letters
from toril.cli.groups.overview import overview
from toril.cli.groups.queues import queues
from toril.cli.groups.schedules import schedules

app = typer.Typer(
    name="toril",
    help="Workers for queues on BullMQ's Redis protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FailOn: TypeAlias = Literal["info", "warning", "error"]

for group in (queues, jobs, schedules, flows, letters, overview):
    app.add_typer(group)


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
    processes: Annotated[
        int, typer.Option(min=1, help="Processes, each with workers of its own; watched and replaced if more than one.")
    ] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when Python or TOML files in this folder change.")] = False,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when nothing is left to run now.")] = False,
    probe_address: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", envvar="TORIL_PROBE_ADDRESS", help="Serve /livez, /readyz and /metrics there, over HTTP."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors at start.")] = False,
) -> None:
    """Run the workers of an application until Ctrl-C or SIGTERM."""
    from toril.stop_signals import STOP_SIGNALS

    STOP_SIGNALS.own()
    from toril.cli.worker_command import WorkerCommand

    names = None if queues is None else _split(queues)
    if names == []:
        raise typer.BadParameter("name at least one queue, or leave it out for all", param_hint="--queues")
    command = WorkerCommand(
        module=module,
        concurrency=concurrency,
        queues=names,
        roles=None if roles is None else _split(roles),
        shutdown_timeout=shutdown_timeout,
        connect_timeout=connect_timeout,
        burst=burst,
        debug=debug,
        is_probed=probe_address is not None,
    )
    if reload and burst:
        raise typer.BadParameter("a burst ends by itself, so there is nothing to reload", param_hint="--reload")
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise typer.BadParameter("it needs watchfiles: pip install 'toril[reload]'", param_hint="--reload")
    probes = None
    if probe_address is not None:
        from toril.cli.probes import listen

        probes = listen(probe_address)
    if processes > 1 or reload:
        from toril.cli.supervisor import run_supervisor

        sys.exit(run_supervisor(command, processes, reload=reload, probes=probes))
    from toril.cli.worker import run_worker

    sys.exit(run_worker(command, probes=probes))


@app.command()
def graph(
    module: Annotated[str, typer.Argument(help="The root module, as in app.main:AppModule.")],
    mermaid: Annotated[Path | None, typer.Option(help="Also write a Mermaid flowchart into this file; - prints it instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Show modules, providers with their scopes, exports, and processors with their queues; or everything that is wrong with them."""
    if as_json and mermaid == Path("-"):
        raise typer.BadParameter("the document and the flowchart can't both be the answer", param_hint="--json")
    from toril.cli.graph import run_graph

    sys.exit(run_graph(module, mermaid, as_json=as_json))


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Where to write it; its last part is the project's name, as in mail-service.")],
) -> None:
    """Write a small application that runs: a module with a typed job, its processor and service, tests, a Makefile."""
    from toril.cli.new import run_new

    sys.exit(run_new(folder))


@app.command()
@with_common_options
def doctor(
    common: CommonOptions,
    queues: Annotated[
        list[str] | None,
        typer.Argument(help="Only these queues, and the server.", metavar="[QUEUE]...", autocompletion=complete_queue),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also show what was looked at and is in order.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="From which severity on the exit code is 1.")] = "error",
    all_keys: Annotated[bool, typer.Option("--all-keys", help="Go through all keys, also where there are more than a million.")] = False,
) -> None:
    """Find out what is wrong with the server and its queues, and what to do about it. Nothing is changed."""
    from toril.cli.doctor import run_doctor

    run_command(common, lambda session: run_doctor(session, queues or [], everything=everything, fail_on=fail_on, all_keys=all_keys))


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main() -> None:
    """The entry point."""
    app()
