"""What a check has found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad it is; they can be compared."""

    OK = 0
    """Looked at, and in order."""
    INFO = 1
    """Worth knowing; meant so, most likely."""
    WARNING = 2
    """Works, and will not for long, or not as meant."""
    ERROR = 3
    """Jobs don't run, or are lost."""

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has to say."""

    check: str
    """The check's name: `eviction`, `handlers`…; it stays the same, so that a program may look for it."""
    queue: str | None
    """The queue that it is about; None: the server."""
    severity: Severity
    text: str
    """What there is, with numbers and names."""
    fix: str | None
    """What to do."""
    facts: Mapping[str, Any]
    """The same for programs: what JSON can hold."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check says, it says through this: `Check("pause", queue.name).ok("not paused")`. Each makes a list of one finding."""

    name: str
    queue: str | None = None

    def ok(self, text: str, **facts: object) -> list[Finding]:
        """In order."""
        return self.found(Severity.OK, text, None, facts)

    def info(self, text: str, fix: str | None = None, **facts: object) -> list[Finding]:
        """Worth knowing."""
        return self.found(Severity.INFO, text, fix, facts)

    def warning(self, text: str, fix: str | None, **facts: object) -> list[Finding]:
        """Not as meant, or not for long."""
        return self.found(Severity.WARNING, text, fix, facts)

    def error(self, text: str, fix: str | None, **facts: object) -> list[Finding]:
        """Jobs don't run, or are lost."""
        return self.found(Severity.ERROR, text, fix, facts)

    def found(self, severity: Severity, text: str, fix: str | None, facts: Mapping[str, Any]) -> list[Finding]:
        """Where the severity is worked out."""
        return [Finding(self.name, self.queue, severity, text, fix, facts)]


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity among them."""
    return max((one.severity for one in findings), default=Severity.OK)
