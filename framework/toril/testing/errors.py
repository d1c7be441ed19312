"""What the test kit reports about a test.

TorilError
└── TestKitError
    ├── StillBusyError      work that has not come to an end in a generous real time
    ├── NeverEndsError      a job that `run_job` waits for and that nothing will bring to its end
    └── LeakError           what a testing module has left behind when it was closed

"""

from __future__ import annotations

from collections.abc import Sequence

from toril.durations import format_ms
from toril.errors import TorilError


class TestKitError(TorilError):
    """Base of what the test kit reports."""

    __test__ = False  # not a test class


class StillBusyError(TestKitError):
    """Workers were still busy after a generous real time, although the clock stood still."""

    def __init__(self, queues: Sequence[str], running: Sequence[str], begun: int, patience_ms: int) -> None:
        super().__init__(queues, running, begun, patience_ms)
        self.queues, self.running, self.begun, self.patience_ms = tuple(queues), tuple(running), begun, patience_ms

    def __str__(self) -> str:
        names = ", ".join(repr(name) for name in self.queues)
        what = "\n".join(f"  runs: {line}" for line in self.running) or "  no job runs at this moment"
        return (
            f"still busy after {format_ms(self.patience_ms)} of real time: the workers of {names}, which have begun {self.begun} jobs "
            f"meanwhile.\n{what}\n"
            "Does a handler wait for what never comes, or does each job add another one without a delay? The jobs that ran were put back. "
            "If it only needs longer, raise `patience` of the testing module."
        )


class NeverEndsError(TestKitError):
    """A job that `run_job` waits for won't come to its end by itself."""

    def __init__(self, job_id: str, queue: str, state: str) -> None:
        super().__init__(job_id, queue, state)
        self.job_id, self.queue, self.state = job_id, queue, state

    def __str__(self) -> str:
        return (
            f"job {self.job_id} of queue {self.queue!r} does not come to its end: it is {self.state}, and nothing is due that could change "
            "that. Is the queue paused, or does the job wait for another one?"
        )


class LeakError(TestKitError):
    """A testing module was closed, and something that it had begun goes on."""

    def __init__(self, leaks: Sequence[str]) -> None:
        super().__init__(leaks)
        self.leaks = tuple(leaks)

    def __str__(self) -> str:
        lines = "\n".join(f"  - {leak}" for leak in self.leaks)
        return f"left behind after the test:\n{lines}\nStop it in on_module_destroy, after a yield, or by leaving its `async with`."
