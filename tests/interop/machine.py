"""The machine that drives both sides: what it knows of the jobs that were claimed, and how a rule takes its step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from tests.interop.differential import T0, World
from tests.interop.peer import NodePeer
from tests.interop.spelling import Json
from tests.interop.toril_side import TorilSide
from toril.wire.connection import Server

STATES: Final = ("wait", "active", "delayed", "prioritized", "waiting-children", "completed", "failed")
MOST_HELD: Final = 12

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine to its end, always in the same loop."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


@dataclass(frozen=True)
class Hold:
    """A job that was claimed, as whoever claimed it knows it."""

    name: str
    queue: str
    job: str
    token: str
    worker: str


class Machine(RuleBasedStateMachine):
    """Both sides, and who holds which job; its rules are in `operations.py` and `upkeep_operations.py`."""

    def __init__(self, world: World, run: Run) -> None:
        super().__init__()
        self.world = world
        self.run = run
        self.now: int = T0
        self.holds: list[Hold] = []
        self.count = 0
        run(world.reset())

    def step(self, operation: str, **args: Json) -> dict[str, Any]:
        return self.run(self.world.step(operation, self.now, **args))

    def on_job(self, operation: str, queue: str, states: Sequence[str], n: int, stray: str, **args: Json) -> None:
        job = self.job_in(queue, states, n, stray)
        if job is not None:
            self.step(operation, queue=queue, job=job, **args)

    def ids(self, queue: str, states: Sequence[str]) -> list[str]:
        found: list[str] = []
        for state in states:
            content = self.world.keys.get(f"bull:{queue}:{state}", {"type": "list", "value": []})
            found += content["value"] if content["type"] == "list" else [member for member, _ in content["value"]]
        return found

    def is_paused(self, queue: str) -> bool:
        return "paused" in self.world.keys.get(f"bull:{queue}:meta", {"value": {}})["value"]

    def waiting_iterations(self, queue: str) -> list[str]:
        return [job for job in self.ids(queue, ("wait", "prioritized")) if job.startswith("repeat:")]

    def early_runs(self, queue: str, scheduler: str) -> list[str]:
        """Those of a scheduler whose time is now or to come, but for the pending one."""
        scores = dict(self.world.keys.get(f"bull:{queue}:repeat", {"value": []})["value"])
        start, pending = f"repeat:{scheduler}:", int(float(scores.get(scheduler, 0)))
        runs = [(job, int(job.removeprefix(start))) for job in self.ids(queue, STATES) if job.startswith(start)]
        return [job for job, due in runs if due >= self.now and due != pending]

    def job_in(self, queue: str, states: Sequence[str], n: int, stray: str) -> str | None:
        if stray == "nobody":
            return "nobody"
        found = self.ids(queue, STATES if stray == "other" else states)
        return found[n % len(found)] if found else None

    def holds_lock(self, hold: Hold) -> bool:
        return bool(self.world.keys.get(f"bull:{hold.queue}:{hold.job}:lock", {}).get("value") == hold.token)

    def end(self, n: int, token: str, **ending: Json) -> None:
        hold = self.holds[n % len(self.holds)]
        told = self.step("end", hold=hold.name, token=token or hold.token, **ending)
        if token == "" and told.get("value") != {"waits": False} and not _is_refused(told, -4, -9):
            self.drop(hold)

    def drop(self, hold: Hold) -> None:
        self.holds.remove(hold)
        self.run(self.world.both("drop", self.now, hold=hold.name))

    def turn(self, queue: str, worker: str, endings: list[dict[str, Any]], count: int) -> None:
        if any(job.startswith("repeat:") for job in self.ids(queue, ("wait", "prioritized", "delayed"))):
            # Each claimed iteration adds the next one: that comes after all claims of a turn, but between single claims.
            count = min(count, 0 if endings else 1)
        self.count += 1
        first = endings[-1]["token"] if endings else f"t{self.count}"
        claims = [{"hold": f"h{self.count}-{place}", "token": first if place == 1 else f"{first}:{place}"} for place in range(1, count + 1)]
        told = self.step("turn", queue=queue, worker=worker, endings=endings, claims=claims)["value"]
        ended = {ending["hold"] for ending, code in zip(endings, told["codes"], strict=True) if code == 0}
        for hold in [hold for hold in self.holds if hold.name in ended]:
            self.drop(hold)
        for claim, job in zip(claims, told["jobs"], strict=False):
            self.holds.append(Hold(claim["hold"], queue, job["id"], claim["token"], worker))
        while len(self.holds) > MOST_HELD:
            self.drop(self.holds[0])


def _is_refused(told: dict[str, Any], *codes: int) -> bool:
    return isinstance(told.get("value"), dict) and told["value"].get("refused") in codes


@contextmanager
def both_sides(url: str, prefix: str) -> Generator[tuple[World, Run]]:
    """Both sides, on prefixes that begin with this one."""
    with asyncio.Runner() as runner:

        async def make() -> tuple[NodePeer, NodePeer, TorilSide, Server]:
            server = Server(url)
            node = await NodePeer(url, f"{prefix}n", "differential.mjs").__aenter__()
            old = await NodePeer(url, f"{prefix}n", "differential.mjs", library="bullmq5").__aenter__()
            return node, old, TorilSide(server, f"{prefix}t"), server

        node, old, ours, server = runner.run(make())
        try:
            yield World(server, node, ours, (f"{prefix}n", f"{prefix}t"), old), runner.run
        finally:
            runner.run(ours.aclose())
            for peer in (node, old):
                runner.run(peer.__aexit__(None, None, None))
            runner.run(server.aclose())
