"""How much was compared with the real BullMQ, counted over all tests of a run and told at its end.

A test asks for the fixture `compared` and adds to what it holds. The numbers travel in the tests' reports, so that a run with several
processes adds them up as well. A test that fails has compared nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import pytest

PREFIX: Final = "compared "


@dataclass
class Compared:
    """What one test has compared."""

    steps: int = 0
    """Steps after which all keys and events were as the Node library's."""
    operations: int = 0
    """Calls of one side whose effect the other one was asked for."""
    jobs: int = 0
    """Jobs that one side added or ran, and the other one did the rest."""


@pytest.fixture
def compared(record_property: Callable[[str, object], None]) -> Iterator[Compared]:
    """Count what the test compares: `compared.jobs += 3`."""
    counts = Compared()
    yield counts
    for name, count in asdict(counts).items():
        record_property(PREFIX + name, count)


class Counting:
    """The plugin that adds up."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.failed = set[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "teardown" and report.nodeid not in self.failed:
            for name, count in report.user_properties:
                if name.startswith(PREFIX) and isinstance(count, int):
                    self.counts[name.removeprefix(PREFIX)] += count

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.counts.total():
            told = ", ".join(f"{self.counts[name]:,} {name}" for name in asdict(Compared()))
            terminalreporter.write_line(f"compared with BullMQ: {told}")
