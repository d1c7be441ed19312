"""Asks before something is destroyed, and reads what is typed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager

from toril.cli.output import Output
from toril.errors import ConfigurationError, TorilError


class NotConfirmedError(ConfigurationError):
    """Nobody can be asked, and `--yes` is missing."""

    def __init__(self, what: str, look: str | None) -> None:
        super().__init__(what, look)
        self.what, self.look = what, look

    def __str__(self) -> str:
        look = "" if self.look is None else f", or {self.look} to look"
        return f"this would {self.what}; standard input is no terminal, so nobody can be asked: add --yes to do it{look}"


class DeclinedError(TorilError):
    """Somebody was asked, and said no."""

    def __str__(self) -> str:
        return "nothing was done"


def confirm(out: Output, what: str, *, yes: bool, look: str | None = "--dry-run") -> None:
    """Tell what would be done, with counts (`remove 120 jobs of queue emails`), and ask whether to do it, unless `yes`.

    Args:
        look: the option with which the command only tells; None: it has none.

    Raises:
        NotConfirmedError, DeclinedError
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(what, look)
    answer = "?"
    with reading():  # before anything is shown: whoever has read the question may press Ctrl-C at once
        out.note(f"This will {what}.")
        while answer not in ("y", "yes", "n", "no", ""):
            sys.stderr.write("Go on? [y/N]: ")
            sys.stderr.flush()
            answer = sys.stdin.readline().strip().lower()
    if not answer.startswith("y"):
        raise DeclinedError


@contextmanager
def reading() -> Generator[None]:
    """Let Ctrl-C end a read from standard input at once, in this block: the event loop's own way would wait for the read to end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
