"""Whether a job that somebody waits for can come to its end at all, while the clock of a test stands still.

`job.result(timeout="5s")` counts its seconds on that clock, so that it would wait for ever where nothing runs the job. What decides is
the state of the job, of the workers and of the clock. Another task of the test may be about to start workers or to move time, so all
must have stayed as it is for a while, counted in looks: an event loop that is held up has looked only once.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from toril.clock import real_sleep
from toril.di import Graph
from toril.modules.explorer import handled_names
from toril.queues.queue import Queue
from toril.queues.states import JobState
from toril.spelling import near
from toril.testing.clock import FakeClock
from toril.testing.crew import Crew
from toril.testing.errors import NeverEndsError
from toril.units import format_ms
from toril.worker.worker import Worker

LOOK_MS: Final = 50
LOOKS: Final = 40
"""So often in a row must all be the same, about 2 s, before the job's state is asked for."""


class Standstill:
    """Watches the waits for results of one queue's jobs.

    Args:
        queue: theirs.
        graph: says which jobs have a handler.
        clock: what the waits are bounded by.
        crew: what runs here.
    """

    def __init__(self, queue: Queue[Any, Any], graph: Graph, clock: FakeClock, crew: Crew) -> None:
        self._queue = queue
        self._handled = handled_names(graph)
        self._clock = clock
        self._crew = crew

    async def watch(self, job_id: str) -> NoReturn:
        """Go on as long as something may bring the job to its end.

        Raises:
            NeverEndsError: nothing will, or what works on it has not ended for the whole patience of the testing module.
            ServerError: nobody can tell.
        """
        seen: object = None
        looks = 0
        while True:
            now = self._happening()
            seen, looks = now, looks + 1 if now == seen else 0
            if looks and looks % LOOKS == 0:
                await self._judge(job_id, still_ms=looks * LOOK_MS)
            await real_sleep(LOOK_MS)  # that nothing happens wakes nobody

    def _happening(self) -> object:
        attempts = frozenset(one.token for worker in self._crew.workers for one in worker.attempts)
        return self._clock.now_ms(), self._crew.begun, frozenset(worker.id for worker in self._crew.workers), attempts

    async def _judge(self, job_id: str, *, still_ms: int) -> None:
        job = await self._queue.find_job(job_id)
        state = None if job is None else await job.get_state()
        if job is None or state is None or state in {"completed", "failed"}:
            return  # whoever waits hears of it
        advice = await self._advice(job.name, job_id, state, still_ms)
        if advice is None and still_ms >= self._crew.patience_ms:
            advice = (
                "nothing has happened here for as long as the testing module has patience. Does its handler wait for what never comes, "
                "or does a worker outside of this testing module have it?"
            )
        if advice is not None:
            raise NeverEndsError(job_id, self._queue.name, state, advice)

    async def _advice(self, name: str, job_id: str, state: JobState, still_ms: int) -> str | None:
        """Why nothing will bring it to its end, and what to do; None if something may."""
        queue = self._queue.name
        workers = self._crew.of([queue])
        if len(await self._queue.get_workers()) > len(workers):
            return None  # one that isn't ours, in this process or in another
        handled = self._handled.get(queue, set[str | None]())
        if not handled:
            return (
                f"no processor of this testing module serves {queue!r}: import the module that provides one, or run a Worker in the test."
            )
        if None not in handled and name not in handled:
            names = sorted(filter(None, handled))
            close = near(name, names)
            hint = f"did you mean {' or '.join(close)}?" if close else f"handled are: {', '.join(names)}."
            return f"no handler of {queue!r} takes jobs named {name!r}: {hint}"
        return self._advice_on(job_id, state, workers, still_ms) if workers else self._advice_without_workers(state)

    def _advice_without_workers(self, state: JobState) -> str:
        queue = self._queue.name
        if state == "delayed":
            return 'time stands still in this test: await t.advance("…") before, which runs what becomes due.'
        if state == "active":
            return 'the worker that took it is gone: await t.advance("2m"), in which its lock expires and another one takes it.'
        if state == "waiting-children":
            return "nothing runs its children in this test: await t.drain() before, or ask inside `async with t.run_workers():`."
        return (
            f"nothing runs the jobs of {queue!r} in this test: await t.drain({queue!r}) before, "
            f"or ask inside `async with t.run_workers({queue!r}):`."
        )

    def _advice_on(self, job_id: str, state: JobState, workers: list[Worker], still_ms: int) -> str | None:
        attempts = [one for worker in self._crew.workers for one in worker.attempts]
        ours = [one for worker in workers for one in worker.attempts if one.job.id == job_id] or attempts
        needs_ms = self._crew.needs_ms(ours)
        step = "…" if needs_ms is None else format_ms(needs_ms)
        if ours and not all(self._clock.is_asleep(one.task) for one in ours):
            if needs_ms is None or still_ms < self._crew.hang_ms:
                return None  # real work
            return (
                "nothing has happened here for a while. If its handler hangs, its timeout stands still as time does in this test: "
                f'await t.advance("{step}") in another task, or before. If it does real work that takes longer, raise `patience`.'
            )
        if state in {"delayed", "active"} or ours:
            return f'time stands still in this test: await t.advance("{step}") in another task, or before.'
        if state == "waiting-children":
            return "its children have not ended: do the workers of their queues run? t.drain() and t.run_workers() run all."
        return 'its worker runs and doesn\'t take it: is the queue paused, or is a limit reached, which needs t.advance("…")?'
