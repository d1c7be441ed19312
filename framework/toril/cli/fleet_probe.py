"""What the probes say of all processes of a supervisor: it asks each over the line that it has to it, and puts the answers together.

Each metric of a process gets a label `process`. Sums would go back when a process is replaced, whose counters begin anew, and
Prometheus would take what the others have counted for new.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from toril.cli.worker_process import WorkerProcess
from toril.errors import MissingExtraError
from toril.units import format_ms
from toril.worker.options import WorkerOptions

if TYPE_CHECKING:
    from prometheus_client.core import Metric

ANSWER_LIMIT_S: Final = 3.0
"""How long a process may take to answer."""

LOOP_LIMIT_S: Final = ANSWER_LIMIT_S + 2


@dataclass(frozen=True, slots=True)
class Answers:
    """What the processes have said to one question."""

    missing: Sequence[int]
    """The numbers of those that did not run when it was asked."""
    told: Mapping[int, Any]
    """Answers by the process's number; None: it did not answer in time."""
    silent_ms: Mapping[int, int]
    """For how long each of them has left questions unanswered."""

    @property
    def problems(self) -> list[str]:
        """All that they name, where the answers are lists of problems."""
        return [f"process {number}: {problem}" for number, problems in self.told.items() for problem in problems or ()]


class Fleet(Protocol):
    """The supervisor, as far as it is asked."""

    @property
    def missing(self) -> Sequence[int]:
        """The numbers of the processes that should run and don't."""
        ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def processes(self) -> Sequence[WorkerProcess]: ...


class FleetProbe:
    """Asked in threads of the probes' server.

    Args:
        fleet: belongs to `loop`, as all its processes do.
        loop: the supervisor's, where nobody's code runs but its own.
    """

    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self._fleet, self._loop = fleet, loop

    def livez(self) -> Sequence[str]:
        try:
            answers = self._ask("livez")
        except FutureTimeoutError:
            return ["the supervisor does not answer"]
        most_ms = WorkerOptions().max_loop_block_ms  # as long as a process may block its own loop
        dead = [f"process {number}: no answer for {format_ms(ms)}" for number, ms in answers.silent_ms.items() if ms > most_ms]
        return [*dead, *answers.problems]

    def readyz(self) -> Sequence[str]:
        if self._fleet.is_stopping:
            return ["the worker is stopping"]
        try:
            answers = self._ask("readyz")
        except FutureTimeoutError:
            return ["the supervisor does not answer"]
        missing = [f"process {number}: it is not running" for number in answers.missing]
        silent = [f"process {number}: no answer within {ANSWER_LIMIT_S:g}s" for number, told in answers.told.items() if told is None]
        return [*missing, *silent, *answers.problems]

    def metrics(self) -> bytes:
        if importlib.util.find_spec("prometheus_client") is None:
            raise MissingExtraError("/metrics", "metrics", "prometheus-client")
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        texts: Mapping[int, str | None] = {}
        with suppress(FutureTimeoutError):
            texts = self._ask("metrics").told

        class Merged(Collector):
            def collect(self) -> Iterator[Metric]:
                yield from merged(texts)

        registry = CollectorRegistry()
        registry.register(Merged())
        return generate_latest(registry)

    def _ask(self, question: str) -> Answers:
        """Ask all that run. Raises FutureTimeoutError."""
        return asyncio.run_coroutine_threadsafe(self._ask_all(question), self._loop).result(LOOP_LIMIT_S)

    async def _ask_all(self, question: str) -> Answers:
        processes, missing = self._fleet.processes, self._fleet.missing
        async with asyncio.TaskGroup() as group:
            asked = {process.number: group.create_task(_answer_of(process, question)) for process in processes}
        told = {number: task.result() for number, task in asked.items()}
        return Answers(missing, told, {process.number: process.silent_ms for process in processes})


async def _answer_of(process: WorkerProcess, question: str) -> Any:  # noqa: ANN401 -- each question has its own kind of answer
    try:
        return await process.ask(question, ANSWER_LIMIT_S)
    except TimeoutError:
        return None


def merged(texts: Mapping[int, str | None]) -> Iterable[Metric]:
    """The metrics of several processes as one set, each sample with the number of its process."""
    from prometheus_client.core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    for number, text in texts.items():
        for family in text_string_to_metric_families(text or ""):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.samples.append(sample._replace(labels={**sample.labels, "process": str(number)}))
    return families.values()
