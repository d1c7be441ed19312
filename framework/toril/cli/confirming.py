"""Asks before something is destroyed."""

from __future__ import annotations

import sys

import typer

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
    out.note(f"This will {what}.")
    if not typer.confirm("Go on?", default=False, err=True):
        raise DeclinedError
