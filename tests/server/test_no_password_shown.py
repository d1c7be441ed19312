"""The password of a server's address stands in no error, nor in what led to it, in no traceback and no log line, at debug level neither."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.fake_server import FakeServer, greets, is_silent
from tests.proxy import Command
from tests.servers import OwnServer, free_ports, one_server
from toril import Job, Queue, Worker
from toril.errors import ServerError, TorilError
from toril.testing import eventually
from toril.wire import connection
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

SECRET: Final = "hunter2hunter2"
SHORT: Final = "qz7!"
"""Too short to be looked for in all that is logged."""
PREFIX: Final = "{x}:bull"
KEYS: Final = QueueKeys(PREFIX, "q")

ADDRESSES: Final = (
    f"redis://u:{SECRET}@127.0.0.1:1/0",
    f"redis://:{SECRET}@127.0.0.1:1/nope",
    f"redis://u:{SECRET}@[::1/0",
    f"rediss://u:{SECRET}@127.0.0.1:1",
    f"redis+sentinel://u:{SECRET}@127.0.0.1:1/m",
    f"redis+sentinel://127.0.0.1:1/m?sentinel_password={SECRET}",
    f"redis+sentinel://127.0.0.1:1/m?sentinel_pasword={SECRET}",
    f"redis+cluster://u:{SECRET}@127.0.0.1:1,127.0.0.1:2",
    f"redis+cluster://u:{SECRET}@127.0.0.1:1/3",
    f"unix://u:{SECRET}@/no/socket",
    f"http://u:{SECRET}@x",
    f"redis://localhost:{SECRET}",
)


def links(error: BaseException | None) -> Iterator[BaseException]:
    """An error with all that led to it, whether a traceback shows that or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error: BaseException) -> str:
    texts = [f"{link} {link!r} {link.args!r} {vars(link)!r}" for link in links(error)]
    return "\n".join([*texts, *traceback.format_exception(error)])


async def handle(job: Job[Any, Any]) -> None: ...


async def shown_for(address: str, caplog: pytest.LogCaptureFixture, *, with_worker: bool = False) -> str:
    """All that anybody could see where an add fails, and a listener, and maybe a worker, which takes 2 s to stop without a server."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def add() -> None:
        async with Server(address, patience_ms=0) as server:
            queue = Queue("q", prefix=PREFIX, server=server)
            texts.append(f"{server!r} {server.commands!r} {server.address} {server.address!r} {queue!r}")
            await queue.add("n")

    async def listen() -> None:
        async with Server(address) as server:
            async for _ in server.subscription(KEYS, KEYS.control):
                pass

    async def work() -> None:
        async with Server(address) as server, Worker(Queue("q", prefix=PREFIX, server=server), handle) as worker:

            async def has_failed() -> None:
                assert worker.problems

            await eventually(has_failed)
            texts.append(f"{worker!r} {worker.problems!r}")
            raise ServerError(str(server.address), worker.problems[0].reason)

    for fails in (add, listen, work) if with_worker else (add, listen):
        with pytest.raises(TorilError) as caught:
            await fails()
        texts.append(shown(caught.value))
    return "\n".join([*texts, caplog.text])


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_that_is_wrong_or_where_nobody_answers(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert SECRET not in await shown_for(address, caplog)


@pytest.mark.parametrize("address", [f"redis://u:{SECRET}@", f"redis+cluster://u:{SECRET}@", f"redis+sentinel://u:{SECRET}@"])
async def test_a_server_that_does_not_answer_in_time(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_MS", 100)
    async with FakeServer(is_silent) as fake:
        text = await shown_for(address + fake.url.removeprefix("redis://") + ("/m" if "sentinel" in address else ""), caplog)
    assert "no answer" in text
    assert SECRET not in text


# ── servers that refuse ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[str]:
    """Where a server is that knows one user, with a password."""
    [port] = free_ports(1)
    async with one_server(tmp_path / "s", port=port) as own:
        await own.ask("ACL", "SETUSER", "u", "on", f">{SECRET}", "~*", "&*", "+@all")
        await own.ask("ACL", "SETUSER", "default", "off")
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("login", "end", "why"),
    [
        (f"u:{SECRET}2", "", "invalid username-password pair"),
        (f"nobody:{SECRET}", "", "invalid username-password pair"),
        (f":{SECRET}", "", "Check user and password"),
        (f"u:{SECRET}", "/99999", "DB index is out of range"),
        (SECRET, "", "invalid username-password pair"),
    ],
    ids=["wrong password", "wrong user", "no user", "wrong database", "password instead of the user"],
)
async def test_a_login_or_database_that_the_server_refuses(
    place: str, login: str, end: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = await shown_for(f"redis://{login}@{place}{end}", caplog, with_worker=True)
    assert why in text
    assert SECRET not in text


async def test_a_password_that_is_right(place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Queue("q", url=f"redis://u:{SECRET}@{place}") as queue, Worker(queue, handle) as worker:
        await (await queue.add("n")).result(timeout="10s")
        text = f"{queue!r} {worker!r} {await queue.get_workers()!r} {[repr(task) for task in asyncio.all_tasks()]}"
    assert SECRET not in text + caplog.text


@pytest.mark.parametrize("secret", [SECRET, SHORT])
@pytest.mark.parametrize("kind", ["redis", "redis+cluster"])
async def test_a_server_that_does_not_know_auth_and_quotes_it(
    kind: str, secret: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [port] = free_ports(1)
    own = OwnServer(tmp_path / "s", port=port, keeps_data=False, arguments=["--rename-command", "AUTH", ""])
    try:
        await own.start()
        text = await shown_for(f"{kind}://u:{quote(secret)}@127.0.0.1:{port}", caplog, with_worker=secret is SECRET)
    finally:
        await own.end()
    assert "unknown command 'AUTH'" in text
    assert secret not in text


@pytest.mark.parametrize("answer", ["-ERR unknown command 'AUTH', with args: 'u' '{}'", "-WRONGPASS {} is no password"])
async def test_sentinels_that_refuse_a_password_and_quote_it(answer: str, caplog: pytest.LogCaptureFixture) -> None:
    async def quotes(command: Command) -> bytes | None:
        return answer.format(command[-1].decode()).encode() + b"\r\n" if command[0] == b"AUTH" else await greets(command)

    async with FakeServer(quotes) as fake:
        address = f"redis+sentinel://u:other@{fake.url.removeprefix('redis://')}/m?sentinel_username=u&sentinel_password={SECRET}"
        text = await shown_for(address, caplog)
    assert answer.partition("{}")[2] in text  # its words are there
    assert SECRET not in text


async def test_a_real_sentinel_and_a_primary_with_passwords_of_their_own(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [port] = free_ports(1)
    lines = (f"port {port}", f"sentinel monitor m {place.replace(':', ' ')} 1", "")
    (tmp_path / "w").mkdir()
    (tmp_path / "w/sentinel.conf").write_text("\n".join(lines))
    watcher = OwnServer(tmp_path / "w", port=port, arguments=["sentinel.conf", "--sentinel"], keeps_data=False)
    try:
        await watcher.start()
        await watcher.ask("ACL", "SETUSER", "default", "resetpass", f">{SECRET}-watch")
        for login, word, why in (
            (f"u:{SECRET}", f"{SECRET}-wrong", "invalid"),
            (f"u:{SECRET}-wrong", f"{SECRET}-watch", "invalid username-password pair"),
        ):
            text = await shown_for(f"redis+sentinel://{login}@127.0.0.1:{port}/m?sentinel_password={word}", caplog)
            assert why in text
            assert SECRET not in text
        async with Queue("q", url=f"redis+sentinel://u:{SECRET}@127.0.0.1:{port}/m?sentinel_password={SECRET}-watch") as queue:
            await queue.add("n")
    finally:
        await watcher.end()
    assert SECRET not in caplog.text
