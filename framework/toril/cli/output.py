"""How a command answers: with tables and words for people, or with one JSON document.

The answer goes to standard output, everything else (questions, progress, remarks, errors) to standard error. Without a terminal
there are no colours, and no line is cut or wrapped. What others have written, such as the names and data of jobs, can't move the
cursor or change colours: what isn't printable is shown as its code.

In JSON, names are snake_case; a moment stands there twice, `added_at` as ISO 8601 in UTC and `added_at_ms` in milliseconds since the
epoch, and a length of time ends in `_ms`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from toril.queues.option_values import moment
from toril.units import format_ms

PIPE_WIDTH: Final = 10_000
"""Columns where nobody looks: a line is for `grep`, and stays whole."""

_SECOND_MS: Final = 1_000


class _Answers(Console):
    def on_broken_pipe(self) -> None:
        """Not rich's way, which ends the process here: whoever reads the answer has seen enough, and that is no failure."""
        raise BrokenPipeError


class Output:
    """Where the answer goes.

    Args:
        as_json: answer with one document instead of words.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
        self._out = _Answers(width=width, highlight=False, emoji=False, markup=False)
        self._err = Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)

    @property
    def is_seen(self) -> bool:
        """Whether somebody looks at standard output, rather than a program."""
        return self._out.is_terminal

    def answer(self, document: Mapping[str, object], *shown: str | Text | Table | Tree) -> None:
        """The one answer of a command: the document with `--json`, else what is shown, part by part."""
        if self.as_json:
            # Not the text itself but its codes: what holds half a character can't be written otherwise.
            print(json.dumps(document, indent=2), flush=True)  # noqa: T201
            return
        for part in shown:
            self._out.print(printable(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, (str, Text)))

    def note(self, text: str) -> None:
        """Something beside the answer, on standard error."""
        self._err.print(printable(text))

    def clear(self) -> None:
        """Begin a new screen, where there is one."""
        self._out.clear()

    def progress(self) -> Progress:
        """A bar on standard error, for work that may take long; nothing is drawn where nobody sees it."""
        return Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._err, transient=True, disable=not self._err.is_terminal,
        )  # fmt: skip

    @staticmethod
    def give_up() -> None:
        """Write nothing more: the reader is gone, and the interpreter would complain of that at its end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(*columns: str, rows: Iterable[Sequence[object]], numbers: Iterable[str] = ()) -> Table:
    """A table of texts, without lines. `numbers`: the columns that stand to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell_text(cell), one_line=True)) for cell in row))
    return made


def fields_table(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names, each with its value beside it; those without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            made.add_row(name, Text(printable(cell_text(value))))
    return made


def cell_text(value: object) -> str:
    """How a value stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def printable(text: str, *, one_line: bool = False) -> str:
    """The text with what a terminal would obey, and what has no UTF-8 form, as codes; line breaks and tabs stay unless `one_line`."""
    if text.isprintable():
        return text
    kept = "" if one_line else "\n\t"
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


def shortened(text: str, most: int) -> str:
    """At most so many characters, with a sign that there are more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def iso(ms: int | None) -> str | None:
    """A moment as ISO 8601, in UTC."""
    return None if ms is None else moment(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at(name: str, ms: int | None) -> dict[str, Any]:
    """A moment for a document: `{name}_at` and `{name}_at_ms`."""
    return {f"{name}_at": iso(ms), f"{name}_at_ms": ms}


def ago(ms: int | None, now_ms: int) -> str | None:
    """How long ago, or in how long, in words: `5m12s ago`, `in 3h`."""
    if ms is None:
        return None
    span = span_text(abs(now_ms - ms))
    return f"{span} ago" if ms <= now_ms else f"in {span}"


def span_text(ms: int | None) -> str | None:
    """A length of time as people read it: its two largest units, and no milliseconds above a second."""
    if ms is None:
        return None
    if ms < _SECOND_MS:
        return format_ms(max(ms, 0))
    for unit_ms, next_ms in ((86_400_000, 3_600_000), (3_600_000, 60_000)):
        if ms >= unit_ms:
            return format_ms(ms // next_ms * next_ms)
    return format_ms(ms // _SECOND_MS * _SECOND_MS)
