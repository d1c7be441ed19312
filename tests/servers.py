"""Real servers of a test's own, of every kind: single ones that can be ended and started again, Sentinels, a Cluster.

    async with one_server(folder) as server:          # server.url; await server.end(SIGKILL); await server.start()
    async with sentinels(folder) as group:            # group.url; await group.primary.end(SIGKILL)
    async with cluster(folder) as group:              # group.url; await (await group.primary_of(keys)).end(SIGKILL)

All listen on the loopback only, keep an append-only file, and are gone at the end of the block.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.support import ask
from toril.embedded.binary import find_binary, server_environment
from toril.testing import eventually
from toril.wire.keys import QueueKeys

SERVICE: Final = "mymaster"
NODE_TIMEOUT_MS: Final = 1_500
DOWN_AFTER_MS: Final = 3_000
"""How long a server may be silent before the Sentinels take it for dead: on a busy machine a shorter time finds dead ones that live."""


Settings = dict[str, str]


def free_ports(count: int) -> list[int]:
    """Ports that were free just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def documented_rules() -> list[str]:
    """The rules of the ACL user that docs/reliability.md tells to make."""
    text = (Path(__file__).parents[1] / "docs/reliability.md").read_text()
    found = re.search(r"ACL SETUSER toril on >secret \\\n(.*?)\n```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


class OwnServer:
    """One server with its own folder, by a socket file or, with a `port`, by TCP."""

    def __init__(self, folder: Path, *, port: int = 0, arguments: Sequence[str] = (), keeps_data: bool = True, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{folder / 's'}"
        self._folder = folder
        self._arguments = arguments
        where = {"bind": "127.0.0.1"} if port else {"unixsocket": "s"}
        file = {"appendonly": "yes", "appendfsync": "always", "save": ""} if keeps_data else {}
        self._settings: Settings = {"port": str(port), "logfile": "log"} | where | file
        self._settings |= {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it with the data that it had, and wait until it answers."""
        words = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        environment = await asyncio.to_thread(server_environment)
        self._process = await asyncio.create_subprocess_exec(
            str(find_binary()), *self._arguments, *words, cwd=self._folder, env=environment
        )
        await eventually(self._answers, timeout="20s")

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it with this signal, and wait until it has ended. Harmless if it has."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
        if self._process is not None:
            await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, say."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ask(self, *command: str | int) -> Any:  # noqa: ANN401 -- a reply can be anything
        """One command on a connection of its own."""
        return await asyncio.to_thread(ask, self.url, *command)

    def _last_words(self) -> str:
        log = self._folder / "log"
        return log.read_text() if log.exists() else "without a word"

    async def _answers(self) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"the server ended: {await asyncio.to_thread(self._last_words)}")
        try:
            await self.ask("PING")
        except RedisError as error:  # it isn't listening yet, or still loads its data
            raise AssertionError(error) from error


@asynccontextmanager
async def one_server(folder: Path, *, port: int = 0, **settings: str) -> AsyncGenerator[OwnServer]:
    """A single server, which has started."""
    server = OwnServer(folder, port=port, keeps_data=True, **settings)
    try:
        await server.start()
        yield server
    finally:
        await server.end()


@dataclass
class SentinelGroup:
    """A primary, its replica, and three Sentinels that watch them."""

    primary: OwnServer
    replica: OwnServer
    watchers: list[OwnServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in self.watchers)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    async def known_port(self) -> int:
        """The port of the server that the Sentinels call the primary now."""
        _, port = await self.watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(port)


@asynccontextmanager
async def sentinels(folder: Path) -> AsyncGenerator[SentinelGroup]:
    """A group that is ready for a failover."""
    one, other, *ports = free_ports(5)
    primary = OwnServer(folder / "one", port=one)
    replica = OwnServer(folder / "other", port=other, replicaof=f"127.0.0.1 {one}")
    watchers = [_watcher(folder / f"w{port}", port, one) for port in ports]
    group = SentinelGroup(primary, replica, watchers)
    async with AsyncExitStack() as stack:
        for server in (primary, replica, *watchers):
            stack.push_async_callback(server.end)
            await server.start()

        async def is_ready() -> None:
            for watcher in watchers:
                reply = await watcher.ask("SENTINEL", "MASTER", SERVICE)
                assert (reply[b"num-slaves"], reply[b"num-other-sentinels"]) == (b"1", b"2")
            assert (await replica.ask("INFO", "replication"))["master_link_status"] == "up"

        await eventually(is_ready, timeout="30s")
        yield group


def _watcher(folder: Path, port: int, primary: int) -> OwnServer:
    folder.mkdir(parents=True)
    lines = [
        f"port {port}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} 5000",
        "",
    ]
    (folder / "sentinel.conf").write_text("\n".join(lines))
    return OwnServer(folder, port=port, arguments=["sentinel.conf", "--sentinel"], keeps_data=False)


@dataclass
class ClusterGroup:
    """Three primaries, and a replica for each, or none."""

    nodes: list[OwnServer]

    @property
    def url(self) -> str:
        """Named by two of its nodes only: the others must be found."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    async def primary_of(self, keys: QueueKeys) -> OwnServer:
        """The node that has this queue now."""
        slot = key_slot(keys.base.encode())
        for node in self.nodes:
            try:
                slots = await node.ask("CLUSTER", "SLOTS")
            except RedisError:
                continue  # it is down
            for first, last, primary, *_ in slots:
                if first <= slot <= last:
                    return next(one for one in self.nodes if one.port == primary[1])
        raise AssertionError(f"no node has slot {slot}")


@asynccontextmanager
async def cluster(folder: Path, *, replicas: int = 3, **settings: str) -> AsyncGenerator[ClusterGroup]:
    """A Cluster of three primaries and so many replicas, whose nodes all know each other; `settings` are for each node."""
    count = 3 + replicas
    ports = free_ports(2 * count)
    common: Settings = {
        "cluster_enabled": "yes",
        "cluster_node_timeout": str(NODE_TIMEOUT_MS),
        "cluster_require_full_coverage": "no",
        "repl_diskless_sync_delay": "0",
    }
    nodes = [
        OwnServer(folder / str(port), port=port, keeps_data=True, **common | settings | {"cluster_port": str(bus)})
        for port, bus in zip(ports[:count], ports[count:], strict=True)
    ]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.end)
            await node.start()
        edges = [0, 5_461, 10_923, 16_384]
        for node, first, after in zip(nodes, edges, edges[1:], strict=False):
            await node.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for node, bus in zip(nodes[1:], ports[count + 1 :], strict=True):
            await nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        await eventually(lambda: _all_know(nodes, "cluster_known_nodes", str(count)), timeout="30s")
        for primary, replica in zip(nodes[:replicas], nodes[3:], strict=True):
            await replica.ask("CLUSTER", "REPLICATE", await primary.ask("CLUSTER", "MYID"))
        await eventually(lambda: _all_know(nodes, "cluster_state", "ok"), timeout="30s")
        await eventually(lambda: _follow(nodes[3:]), timeout="30s")
        yield ClusterGroup(nodes)


async def _all_know(nodes: Sequence[OwnServer], what: str, value: str) -> None:
    for node in nodes:
        assert f"{what}:{value}\r\n" in (await node.ask("CLUSTER", "INFO")).decode()


async def _follow(replicas: Sequence[OwnServer]) -> None:
    for replica in replicas:
        assert (await replica.ask("INFO", "replication")).get("master_link_status") == "up"
