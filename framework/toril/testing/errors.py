"""What the test kit reports about a test.

TorilError
└── TestKitError
    ├── TestServerError     the server that TORIL_TEST_REDIS_URL names is of no use
    ├── NotEnteredError     a testing module was used outside of its `async with` block
    ├── StillBusyError      work that has not come to an end in a generous real time
    ├── NeverEndsError      a job that somebody waits for and that nothing will bring to its end
    └── LeakError           what a testing module has left behind when it was closed

"""

from __future__ import annotations

from collections.abc import Sequence

from toril.errors import TorilError
from toril.units import format_ms


class TestKitError(TorilError):
    """Base of what the test kit reports."""

    __test__ = False  # not a test class


class TestServerError(TestKitError):
    """The server that `TORIL_TEST_REDIS_URL` names can't be used. `address` never holds a password."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"TORIL_TEST_REDIS_URL names a server that can't be used, {self.address}: {self.reason}. "
            "Put it right, or unset the variable: without it, the tests start a server of their own."
        )


class NotEnteredError(TestKitError):
    """A testing module was used before its `async with` block, or after it (`is_over`); `call` tells how."""

    def __init__(self, call: str, is_over: bool) -> None:
        super().__init__(call, is_over)
        self.call, self.is_over = call, is_over

    def __str__(self) -> str:
        if self.is_over:
            return f"{self.call} came after the testing module was closed: do it inside its block, `async with … as t:`"
        return f"{self.call} came before the testing module was entered, and no hook of starting has run: enter it first, `async with t:`"


class StillBusyError(TestKitError):
    """Workers were still busy after a generous real time, although the clock stood still.

    Args:
        needs_ms: how much time must pass for the jobs that run to go on, or for their timeouts to be over; None: not known.
        sleeps: they wait for nothing but that.
        waited_ms: how long nothing happened, or all in all where `needs_ms` is not known.
    """

    def __init__(
        self, queues: Sequence[str], running: Sequence[str], begun: int, waited_ms: int, needs_ms: int | None = None, sleeps: bool = False
    ) -> None:
        super().__init__(queues, running, begun, waited_ms, needs_ms, sleeps)
        self.queues, self.running, self.begun, self.waited_ms = tuple(queues), tuple(running), begun, waited_ms
        self.needs_ms, self.sleeps = needs_ms, sleeps

    def __str__(self) -> str:
        names = ", ".join(repr(name) for name in self.queues)
        what = "\n".join(f"  runs: {line}" for line in self.running) or "  no job runs at this moment"
        if self.needs_ms is None:
            return (
                f"still busy after {format_ms(self.waited_ms)} of real time: the workers of {names}, which have begun {self.begun} jobs "
                f"meanwhile.\n{what}\n"
                "Does a handler wait for what never comes, or does each job add another one without a delay? "
                "The jobs that ran were put back. If it only needs longer, raise `patience` of the testing module."
            )
        advice = f'await t.advance("{format_ms(self.needs_ms)}") instead, which runs jobs and lets time pass.'
        if self.sleeps:
            return (
                f"the jobs that run in {names} wait for the clock, which stands still in a test:\n{what}\n"
                f"A{advice[1:]} The jobs that ran were put back."
            )
        return (
            f"nothing has happened for {format_ms(self.waited_ms)} of real time in the workers of {names}, while the clock stands still, "
            f"and with it the timeouts of:\n{what}\n"
            f"If it hangs, {advice} If it does real work that takes longer, raise `patience` of the testing module. "
            "The jobs that ran were put back."
        )


class NeverEndsError(TestKitError):
    """A job that `run_job` or `Job.result` waits for won't come to its end by itself; `advice` tells why, and what to do."""

    def __init__(self, job_id: str, queue: str, state: str, advice: str) -> None:
        super().__init__(job_id, queue, state, advice)
        self.job_id, self.queue, self.state, self.advice = job_id, queue, state, advice

    def __str__(self) -> str:
        return f"job {self.job_id} of queue {self.queue!r} does not come to its end: it is {self.state}, and {self.advice}"


class LeakError(TestKitError):
    """A testing module was closed, and something that it had begun goes on."""

    def __init__(self, leaks: Sequence[str]) -> None:
        super().__init__(leaks)
        self.leaks = tuple(leaks)

    def __str__(self) -> str:
        lines = "\n".join(f"  - {leak}" for leak in self.leaks)
        return f"left behind after the test:\n{lines}\nStop it in on_module_destroy, after a yield, or by leaving its `async with`."
