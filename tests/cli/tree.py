"""All commands that there are, as typer knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import typer.main

from toril.cli.main import app


def _leaves(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 -- typer doesn't export its classes
    groups: dict[str, Any] | None = getattr(command, "commands", None)
    if groups is None:
        yield before, command
        return
    for name, inner in groups.items():
        yield from _leaves(inner, (*before, name))


LEAVES: Final[dict[tuple[str, ...], Any]] = dict(sorted(_leaves(typer.main.get_command(app))))
"""All commands that can be called, by their words as they are typed."""

COMMANDS: Final = list(LEAVES)
