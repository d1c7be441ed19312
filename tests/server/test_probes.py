"""`toril worker --probe-address`: what the probes say of real processes while something is wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.app.processes import Runner, Running, runner_of
from tests.proxy import Cut, Proxy, is_script
from tests.servers import OwnServer, free_ports
from tests.support import eventually_now
from toril import Queue
from toril.cli.probes import listen
from toril.errors import MissingExtraError
from toril.testing import eventually
from toril.wire.connection import Server

pytestmark = pytest.mark.blocks_the_loop  # these tests ask processes, and wait for them

APPLICATION: Final = "application:AppModule"


@pytest.fixture
def run(tmp_path: Path, toril_server_url: str, prefix: str) -> Iterator[Runner]:
    with runner_of(Path(__file__).with_name("probed_application.py"), tmp_path, toril_server_url, prefix) as runner:
        yield runner


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue[Any, Any]("work", prefix=prefix, server=server) as queue:
        yield queue


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[OwnServer]:
    """One that the test may stop, with a password."""
    server = OwnServer(tmp_path / "own", port=free_ports(1)[0])
    await server.start()
    yield server
    await server.end()


class Probed:
    """A worker and its probes."""

    def __init__(self, worker: Running) -> None:
        self.worker = worker
        worker.read_until(" probes ")
        found = re.search(r"probes .* url=(\S+)", worker.output)
        assert found is not None
        self.url = found[1]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def problems(self, path: str) -> list[str]:
        """What is wrong, by a body that agrees with the status."""
        status, body = self.get(path)
        told = json.loads(body)
        assert told["alive" if path == "/livez" else "ready"] is (status == 200)
        assert status == (503 if told["problems"] else 200)
        return list(told["problems"])

    def is_ready(self) -> None:
        assert self.problems("/readyz") == []

    def is_not_ready(self, word: str) -> None:
        assert word in "\n".join(self.problems("/readyz"))

    def is_alive(self) -> None:
        assert self.problems("/livez") == []

    def sum_of(self, metric: str, **labels: str) -> float:
        """Over all processes."""
        status, text = self.get("/metrics")
        assert status == 200
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == metric]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.fixture
def start(run: Runner, tmp_path: Path) -> Callable[..., Probed]:
    """Starts a worker with probes."""

    def start(*arguments: str, processes: int = 1) -> Probed:
        options = ("--processes", str(processes), "--probe-address", "0", *arguments)
        return Probed(run.worker(*options, module=APPLICATION, folder=tmp_path))

    return start


# ── one process ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_works(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start()
    eventually_now(probed.is_ready)
    job = await queue.add("quick", delay="1h")
    await (await queue.add("quick")).result(timeout="20s")
    probed.is_alive()
    assert probed.sum_of("toril_jobs_total", queue="work", name="quick", outcome="completed") == 1
    assert probed.sum_of("toril_queue_jobs", queue="work", state="delayed") == 1
    assert probed.sum_of("toril_slots", queue="work") == 4
    assert probed.sum_of("process_resident_memory_bytes") > 0  # and whatever else the process shows in this registry
    await job.remove()
    assert probed.get("/other") == (404, '{"error": "ask for /livez, /readyz or /metrics"}\n')
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_the_age_of_the_next_waiting_job(start: Callable[..., Probed], queue: Queue) -> None:
    await queue.pause()
    await queue.add("quick")
    probed = start()
    eventually_now(probed.is_ready)  # a paused queue is nothing wrong with the worker
    eventually_now(lambda: _at_least(probed.sum_of("toril_queue_oldest_waiting_seconds", queue="work"), 0.5))
    assert probed.sum_of("toril_queue_jobs", queue="work", state="waiting") == 1


def _at_least(found: float, least: float) -> None:
    assert found >= least


async def test_it_is_alive_and_not_ready_while_it_waits_for_its_server(run: Runner, start: Callable[..., Probed]) -> None:
    run.environment["REDIS_URL"] = "redis://:s3cret-word@127.0.0.1:1"
    probed = start()
    probed.worker.read_until("waiting for the server")
    probed.is_alive()
    probed.is_not_ready("the application is being created")
    assert probed.worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_server_that_goes_away_makes_it_unready_until_it_is_back(
    run: Runner, start: Callable[..., Probed], own_server: OwnServer, processes: int
) -> None:
    run.environment["REDIS_URL"] = own_server.url
    probed = start(processes=processes)
    eventually_now(probed.is_ready)
    await own_server.end()
    for who in ("process 1: ", "process 2: ") if processes == 2 else ("",):
        eventually_now(partial(probed.is_not_ready, f"{who}queue work: "))
    probed.is_alive()
    assert probed.get("/metrics")[0] == 200
    assert probed.sum_of("toril_queue_jobs") == 0  # unknown: an old number would be a lie
    await own_server.start()
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_a_server_that_hangs_makes_it_unready_before_the_network_gives_up(
    run: Runner, start: Callable[..., Probed], own_server: OwnServer
) -> None:
    run.environment["REDIS_URL"] = own_server.url
    probed = start()
    eventually_now(probed.is_ready)

    async def all_is_answered() -> None:  # what is asked and not answered fails by itself, and is told as that
        clients = await own_server.ask("CLIENT LIST")
        assert await own_server.ask("EXISTS", f"{run.environment['TORIL_PREFIX']}:work:stalled-check")
        assert any(client["cmd"] == "bzpopmin" and "b" in client["flags"] for client in clients)

    await eventually(all_is_answered)
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        eventually_now(lambda: probed.is_not_ready("the server was last heard of"))
        probed.is_alive()
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_a_worker_whose_turn_is_not_answered_is_unready_before_the_network_gives_up(
    run: Runner, start: Callable[..., Probed], queue: Queue, toril_server_url: str
) -> None:
    """The turn has asked for all its slots, so that it would ask for nothing more."""
    in_thread = asyncio.to_thread  # the proxy needs the loop of the test
    async with Proxy(toril_server_url) as proxy:
        run.environment["REDIS_URL"] = proxy.url
        probed = await in_thread(start)
        await in_thread(eventually_now, probed.is_ready)
        turns = is_script("turn")
        proxy.decide = lambda command: Cut.HOLD if turns(command) else None
        await queue.add("quick")
        await proxy.happened.wait()
        await in_thread(eventually_now, lambda: probed.is_not_ready("the server was last heard of"))
        await in_thread(probed.is_alive)
        proxy.decide = lambda command: None
        proxy.release()
        await in_thread(eventually_now, probed.is_ready)
        assert await in_thread(probed.worker.end, signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [
        pytest.param(("ACL", "SETUSER", "default", "-@scripting"), ("ACL", "SETUSER", "default", "+@all"), id="rights withdrawn"),
        pytest.param(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), id="failed over"),
    ],
)
async def test_a_server_that_refuses_makes_it_unready_until_it_does_not(
    run: Runner, start: Callable[..., Probed], own_server: OwnServer, refuse: tuple[str, ...], accept: tuple[str, ...]
) -> None:
    run.environment["REDIS_URL"] = own_server.url
    probed = start()
    eventually_now(probed.is_ready)
    await own_server.ask(*refuse)
    eventually_now(lambda: probed.is_not_ready("queue work: "))
    probed.is_alive()
    await own_server.ask(*accept)
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", [Cut.BEFORE, Cut.AFTER, Cut.HOLD])
async def test_locks_that_can_not_be_renewed_make_it_unready_though_all_else_works(
    run: Runner, start: Callable[..., Probed], queue: Queue, toril_server_url: str, how: Cut
) -> None:
    in_thread = asyncio.to_thread  # the proxy needs the loop of the test
    async with Proxy(toril_server_url) as proxy:
        run.environment["REDIS_URL"] = proxy.url
        probed = await in_thread(start)
        await queue.add("hang", 60)
        await in_thread(probed.worker.read_until, "hanging")
        await in_thread(eventually_now, probed.is_ready)
        renews = is_script("renew_locks")
        proxy.decide = lambda command: how if renews(command) else None
        await in_thread(eventually_now, lambda: probed.is_not_ready("queue work: locks"))
        await in_thread(probed.is_alive)
        proxy.decide = lambda command: None
        proxy.release()
        await in_thread(eventually_now, probed.is_ready)
        assert await in_thread(probed.worker.end, signal.SIGKILL) == -signal.SIGKILL


async def test_a_lock_that_is_lost_is_counted_and_the_worker_stays_ready(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start()
    eventually_now(probed.is_ready)
    job = await queue.add("hang", 60)
    probed.worker.read_until("hanging")
    await queue.server.commands.call("DEL", queue.keys.lock(job.id))
    eventually_now(lambda: _equal(probed.sum_of("toril_locks_lost_total", queue="work"), 1))
    probed.is_ready()
    probed.is_alive()
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_a_blocked_loop_is_unready_and_past_its_limit_not_alive(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start()
    eventually_now(probed.is_ready)
    await queue.add("block", 5)
    probed.worker.read_until("blocking")
    eventually_now(lambda: probed.is_not_ready("the event loop has been blocked for"))
    eventually_now(lambda: _told(probed.problems("/livez"), "the event loop has been blocked for"))
    assert probed.sum_of("toril_loop_blocks_total", queue="work") == 1
    assert probed.sum_of("toril_slots_busy", queue="work") == 1
    eventually_now(probed.is_alive)  # it has ended after all
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


def _told(problems: list[str], words: str) -> None:
    assert words in "\n".join(problems)


@pytest.mark.parametrize("processes", [1, 2])
async def test_from_the_signal_on_it_is_unready_and_alive(start: Callable[..., Probed], queue: Queue, processes: int) -> None:
    probed = start(processes=processes)
    eventually_now(probed.is_ready)
    await queue.add("hang", 3)
    probed.worker.read_until("hanging")
    probed.worker.process.send_signal(signal.SIGTERM)
    eventually_now(lambda: probed.is_not_ready("stopping"))
    probed.is_alive()
    assert probed.worker.end() == 0


# ── several processes, one port ───────────────────────────────────────────────────────────────────────────────


async def test_the_metrics_of_all_processes_stand_side_by_side(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start(processes=3)
    eventually_now(probed.is_ready)
    jobs = await queue.add_many([queue.job("quick") for _ in range(60)])
    for job in jobs:
        await job.result(timeout="20s")
    eventually_now(lambda: _equal(probed.sum_of("toril_jobs_total", name="quick", outcome="completed"), 60))
    assert probed.sum_of("toril_slots", queue="work") == 12
    assert [probed.sum_of("toril_slots", process=str(number)) for number in (1, 2, 3)] == [4, 4, 4]
    assert probed.worker.end(signal.SIGTERM) == 0


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


async def test_a_killed_process_is_missed_until_it_is_replaced(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start(processes=2)
    eventually_now(probed.is_ready)
    killed = await (await queue.add("quick")).result(timeout="20s")
    os.kill(killed, signal.SIGKILL)
    eventually_now(lambda: probed.is_not_ready("process "))
    probed.is_alive()
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_one_blocked_process_speaks_for_all(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start(processes=2)
    eventually_now(probed.is_ready)
    await queue.add("block", 5)
    probed.worker.read_until("blocking")
    eventually_now(lambda: _told(probed.problems("/livez"), ": the event loop has been blocked for"))
    probed.is_not_ready(": queue work: the event loop has been blocked for")
    assert probed.sum_of("toril_slots", queue="work") == 8
    eventually_now(probed.is_alive)
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_a_process_that_answers_nothing_is_unready(start: Callable[..., Probed], queue: Queue) -> None:
    probed = start(processes=2)
    eventually_now(probed.is_ready)
    stopped = await (await queue.add("quick")).result(timeout="20s")
    os.kill(stopped, signal.SIGSTOP)
    try:
        eventually_now(lambda: probed.is_not_ready(": no answer within 3s"))
        probed.is_alive()
        assert probed.sum_of("toril_slots", queue="work") == 4
    finally:
        os.kill(stopped, signal.SIGCONT)
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


# ── the address ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_is_taken_is_told_before_anything_begins(run: Runner, tmp_path: Path, processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = run.worker("--processes", processes, "--probe-address", str(port), module="no:Module", folder=tmp_path)
        assert worker.end() == 2
    words = re.sub(r"\s+", " ", worker.output)
    assert f"Invalid value for --probe-address: can't listen at 127.0.0.1, port {port} (Address already in use)" in words


@pytest.mark.parametrize("address", ["http", "localhost", "127.0.0.1:", "99999", "-1", "::1"])
def test_an_address_that_is_none_says_how_it_is_written(run: Runner, tmp_path: Path, address: str) -> None:
    worker = run.worker(f"--probe-address={address}", module="no:Module", folder=tmp_path)
    assert worker.end() == 2
    assert "write 8080, or 0.0.0.0:8080 to be heard on all addresses" in re.sub(r"\s+", " ", worker.output)


def test_the_address_may_come_from_the_environment(run: Runner, tmp_path: Path) -> None:
    run.environment["TORIL_PROBE_ADDRESS"] = "localhost:0"
    probed = Probed(run.worker(module=APPLICATION, folder=tmp_path))
    eventually_now(probed.is_ready)
    assert probed.worker.end(signal.SIGTERM) == 0


async def test_on_ipv6_and_without_prometheus_client_metrics_say_what_is_missing() -> None:
    class Bare:
        def livez(self) -> list[str]:
            return []

        def readyz(self) -> list[str]:
            return ["redis://:s3cret-word@db:6379 is away"]

        def metrics(self) -> bytes:
            raise MissingExtraError("/metrics", "metrics", "prometheus-client")

    listener = listen("[::1]:0")
    with listener.answering(Bare()):
        await eventually(lambda: _bare(f"http://[::1]:{listener.server_address[1]}"))


def _bare(url: str) -> None:
    for path, status, body in (
        ("/metrics", 501, "pip install 'toril[metrics]'"),
        ("/readyz", 503, '{"ready": false, "problems": ["redis://:***@db:6379 is away"]}'),
    ):
        with pytest.raises(urllib.error.HTTPError) as raised, urllib.request.urlopen(url + path, timeout=5):
            pass
        with raised.value as answer:
            assert answer.code == status
            assert body in answer.read().decode()
