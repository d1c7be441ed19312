"""What goes wrong in a storm, and who does it: workers killed, stopped and restarted, the server killed and frozen, connections cut.

Five worker processes; two of them, and the producer, reach the server through a proxy that cuts connections before and after
the server ran a command. All that is random comes from one seeded source.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.proxy import Proxy, at_random, is_script
from tests.servers import OwnServer
from toril.clock import real_sleep

WORKERS: Final = 5
THROUGH_THE_PROXY: Final = 2

FAULTS: Final = {
    "worker killed": 10,
    "worker stopped in order": 2,
    "worker frozen": 2,
    "connections cut": 4,
    "proxy down": 1,
    "server frozen": 1,
    "server killed": 1,
}
"""How often each comes, in relation to the others."""

ROOT: Final = Path(__file__).parents[2]


@dataclass
class Place:
    """One of the five places, and the process that has it now."""

    url: str
    process: Process | None = None


class Storm:
    """Workers and faults. `disturbed` tells which processes were killed, stopped or frozen, by their ids."""

    def __init__(self, server: OwnServer, proxy: Proxy, prefix: str, log: Path, source: Random) -> None:
        self.happened: Counter[str] = Counter()
        self.disturbed: dict[int, str] = {}
        self.server_was_away = False
        self.ends = asyncio.Event()
        """Set it, and `rage` returns once what it does is done."""
        self._server = server
        self._proxy = proxy
        self._prefix = prefix
        self._log = log
        self._source = source
        self._places = [Place(proxy.url if n < THROUGH_THE_PROXY else server.url) for n in range(WORKERS)]

    async def start(self) -> None:
        for place in self._places:
            await self._start(place)
        turns = is_script("turn")
        adds, flows = is_script("add"), is_script("add_flow")
        self._proxy.decide = at_random(self._source, 0.01, lambda command: turns(command) or adds(command) or flows(command))

    async def rage(self, pause_s: float, long_freeze: bool) -> None:
        """Let one thing after the other go wrong, until `ends` is set."""
        if long_freeze:
            await self._freeze_server(20)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._source.uniform(0.2, 2 * pause_s)):
                    await self.ends.wait()
                    return
            [fault] = self._source.choices(list(FAULTS), list(FAULTS.values()))
            self.happened[fault] += 1
            await self._do(fault)

    async def calm(self) -> None:
        """Mend everything: all workers run, the server answers, nothing is cut any more."""
        self._proxy.decide = lambda command: None
        self._proxy.up()
        self._server.send_signal(signal.SIGCONT)
        for place in self._places:
            assert place.process is not None
            if place.process.returncode is not None:
                await self._start(place)
            else:
                place.process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """End all workers: in order, and by force those that don't."""
        for place in self._places:
            await self._end(place, signal.SIGTERM)

    async def _do(self, fault: str) -> None:
        place = self._source.choice(self._places)
        match fault:
            case "worker killed":
                await self._end(place, signal.SIGKILL)
                self.disturbed[self._pid(place)] = "its worker was killed"
                await self._start(place)
            case "worker stopped in order":
                self.disturbed[self._pid(place)] = "its worker was told to stop"
                await self._end(place, signal.SIGTERM)
                await self._start(place)
            case "worker frozen":
                await self._freeze(place)
            case "connections cut":
                self._proxy.cut()
            case "proxy down":
                self._proxy.down()
                await real_sleep(self._source.randrange(200, 2_000))
                self._proxy.up()
            case "server frozen":
                await self._freeze_server(self._source.uniform(0.5, 4))
            case _:
                self.server_was_away = True
                await self._server.end(signal.SIGKILL)
                await self._server.start()

    async def _freeze(self, place: Place) -> None:
        assert place.process is not None
        self.disturbed[self._pid(place)] = "its worker was frozen"
        place.process.send_signal(signal.SIGSTOP)
        await real_sleep(self._source.randrange(500, 6_000))
        place.process.send_signal(signal.SIGCONT)

    async def _freeze_server(self, seconds: float) -> None:
        self.server_was_away = True
        self._server.send_signal(signal.SIGSTOP)
        try:
            await real_sleep(round(seconds * 1_000))
        finally:
            self._server.send_signal(signal.SIGCONT)

    def _pid(self, place: Place) -> int:
        assert place.process is not None
        return place.process.pid

    async def _start(self, place: Place) -> None:
        words = "-m", "tests.chaos.worker", place.url, self._prefix, str(self._log)
        place.process = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=ROOT, stderr=DEVNULL, stdin=DEVNULL)

    async def _end(self, place: Place, number: signal.Signals) -> None:
        assert place.process is not None
        with contextlib.suppress(ProcessLookupError):
            place.process.send_signal(number)
            place.process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(20):
                await place.process.wait()
        except TimeoutError:
            self.happened["worker did not stop within 20 s"] += 1
            place.process.kill()
            await place.process.wait()
