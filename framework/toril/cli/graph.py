"""`toril graph`: shows the modules of an application. Nothing is made, and no server is needed."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from toril.cli import exit_codes
from toril.cli.loading import load_module
from toril.errors import TorilError
from toril.modules.application_graph import graph_of
from toril.modules.graph_picture import document, mermaid, tree
from toril.telemetry.redaction import redact_text


def run_graph(module: str, mermaid_file: Path | None, *, as_json: bool) -> int:
    """Print the tree (or the JSON document), write the Mermaid file if one is named (`-`: print that instead); the exit code."""
    try:
        graph = graph_of(load_module(module))
    except TorilError as error:
        typer.echo(redact_text(str(error)), err=True)
        return exit_codes.USAGE
    if mermaid_file == Path("-"):
        typer.echo(mermaid(graph))
        return 0
    if as_json:
        typer.echo(json.dumps(document(graph), indent=2))
    else:
        typer.echo(tree(graph))
        for warning in graph.warnings:
            typer.echo(f"warning: {warning}", err=True)
    if mermaid_file is not None:
        try:
            mermaid_file.write_text(mermaid(graph) + "\n", encoding="utf-8")
        except OSError as error:
            typer.echo(f"can't write {mermaid_file}: {error.strerror}", err=True)
            return exit_codes.USAGE
    return 0
