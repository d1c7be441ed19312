"""Connections: many callers in one line, and everything that can happen to a line."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import socket
import traceback
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.bench import error_of
from tests.fake_server import FakeServer, bulk, greets, is_silent
from tests.proxy import Command, Cut, Proxy, is_command, nth
from toril import Queue
from toril.errors import (
    CommandFailedError,
    InvalidRedisUrlError,
    QueueClosedError,
    ServerRefusedError,
    ServerTooOldError,
    ServerUnreachableError,
)
from toril.telemetry import redact_text
from toril.wire import connection as connection_module
from toril.wire import scripts
from toril.wire.address import ServerAddress
from toril.wire.connection import Connection, Server, backoff_ms
from toril.wire.keys import QueueKeys
from toril.wire.line import ReplyLostError
from toril.wire.scripts import Script


@pytest.fixture(autouse=True)
async def no_readers_left() -> AsyncIterator[None]:
    """Every task that a test's connections started has ended with them."""
    yield
    assert readers() == []


def readers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("replies")]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# ── the line ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_concurrent_callers_share_one_connection_and_get_their_own_replies(proxy: Proxy) -> None:
    async with Server(proxy.url) as server, asyncio.TaskGroup() as callers:
        calls = [callers.create_task(server.commands.call("ECHO", number)) for number in range(300)]
    assert [int(call.result()) for call in calls] == list(range(300))
    assert proxy.connections == 1


async def test_an_error_of_the_server_reaches_only_its_own_caller(server: Server, prefix: str) -> None:
    async with asyncio.TaskGroup() as callers:
        before = callers.create_task(server.commands.call("ECHO", "before"))
        wrong = callers.create_task(error_of(server.commands.call("LPOP", f"{prefix}:a", "x", "y", "z")))
        after = callers.create_task(server.commands.call("ECHO", "after"))
    assert (before.result(), after.result()) == (b"before", b"after")
    assert isinstance(wrong.result(), CommandFailedError)


async def test_a_cancelled_caller_leaves_the_others_their_replies(proxy: Proxy) -> None:
    proxy.decide = nth(1, is_command("ECHO"), Cut.HOLD)
    async with Server(proxy.url) as server, asyncio.TaskGroup() as callers:
        calls = [callers.create_task(server.commands.call("ECHO", number)) for number in range(3)]
        await proxy.seen(is_command("ECHO"), 3)
        calls[1].cancel()
        proxy.release()
        await asyncio.wait(calls)
        assert calls[1].cancelled()
        assert [int(calls[number].result()) for number in (0, 2)] == [0, 2]
        assert await server.commands.call("ECHO", "later") == b"later"
    assert proxy.connections == 1


async def test_a_caller_cancelled_while_the_server_does_not_read_spoils_nothing() -> None:
    async with FakeServer() as fake, Server(fake.url) as server:
        await server.commands.connect()
        fake.may_read.clear()
        await server.commands.call("ECHO", "goes by, since it is being read already")
        big = asyncio.create_task(server.commands.call("SET", "key", b"x" * 8_000_000))
        small = asyncio.create_task(server.commands.call("PING"))
        await _until_written(small)
        big.cancel()
        await asyncio.wait([big])
        fake.may_read.set()
        assert await small == b"OK"
        assert big.cancelled()
        assert (fake.connections, fake.commands[-2][0], len(fake.commands[-2][2])) == (1, b"SET", 8_000_000)


async def test_arguments_may_be_any_bytes(server: Server) -> None:
    anything = bytes(range(256)) * 100
    assert await server.commands.call("ECHO", anything) == anything


# ── a line that breaks ────────────────────────────────────────────────────────────────────────────────────────


async def test_everybody_in_the_line_hears_of_a_break_and_the_next_call_connects_anew(server: Server, prefix: str, proxy: Proxy) -> None:
    through = Server(proxy.url, patience_ms=0)
    async with through:
        number: int = await through.commands.call("CLIENT", "ID")
        blocked = asyncio.create_task(error_of(through.commands.call("BLPOP", f"{prefix}:nothing", 0, block_ms=60_000)))
        behind = asyncio.create_task(error_of(through.commands.call("PING")))
        await proxy.seen(is_command("PING"))
        assert await server.commands.call("CLIENT", "KILL", "ID", number) == 1
        for error in (await blocked, await behind):
            assert isinstance(error, ReplyLostError)
            assert "the reply was lost" in str(error)
        assert await through.commands.call("CLIENT", "ID") > number
        assert through.commands.is_connected


async def test_a_server_that_does_not_answer_in_time_breaks_the_line() -> None:
    async with FakeServer() as fake:
        connection = Connection(ServerAddress(fake.url), reply_timeout_ms=30)
        await connection.connect()
        fake.answer = is_silent
        with pytest.raises(ReplyLostError, match="did not answer in time"):
            await connection.call("PING")
        assert not connection.is_connected
        fake.answer = greets
        assert await connection.call("PING") == b"OK"
        assert fake.connections == 2
        await connection.aclose()


async def test_a_blocking_command_may_take_its_block_time_on_top(server: Server, prefix: str) -> None:
    connection = Connection(server.address, reply_timeout_ms=2_000)
    assert await connection.call("BLPOP", f"{prefix}:nothing", 0.05, block_ms=50) is None
    await connection.aclose()


async def test_a_reply_that_nobody_asked_for_breaks_the_connection_and_no_more() -> None:
    async def doubles(command: Command) -> bytes | None:
        return b"+OK\r\n+OK\r\n" if command[0] == b"PING" else await greets(command)

    async with FakeServer(doubles) as fake, Server(fake.url) as server:
        assert await server.commands.call("PING") == b"OK"
        assert await server.commands.call("ECHO", "x", repeatable=True) == b"OK"
        assert fake.connections == 2


async def test_bytes_that_are_no_reply_break_the_connection() -> None:
    async def babbles(command: Command) -> bytes | None:
        return b"HTTP/1.1 400 Bad Request\r\n" if command[0] == b"PING" else await greets(command)

    async with FakeServer(babbles) as fake, Server(fake.url, patience_ms=0) as server:
        with pytest.raises(ReplyLostError):
            await server.commands.call("PING")
        assert await server.commands.call("ECHO", "x") == b"OK"


# ── what is repeated ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_repeatable_command_is_sent_again_when_its_reply_is_lost(proxy: Proxy, prefix: str) -> None:
    proxy.decide = nth(1, is_command("SET"), Cut.AFTER)
    async with Server(proxy.url) as server:
        assert await server.commands.call("SET", f"{prefix}:a", "1", repeatable=True) == b"OK"
    assert (proxy.cuts, sum(map(is_command("SET"), proxy.commands))) == (1, 2)


@pytest.mark.parametrize(("cut", "value"), [(Cut.BEFORE, None), (Cut.AFTER, b"1")])
async def test_any_other_command_is_not_repeated_whatever_the_server_did(proxy: Proxy, prefix: str, cut: Cut, value: bytes | None) -> None:
    proxy.decide = nth(1, is_command("INCR"), cut)
    async with Server(proxy.url) as server:
        with pytest.raises(ReplyLostError):
            await server.commands.call("INCR", f"{prefix}:a")
        assert await server.commands.call("GET", f"{prefix}:a") == value


async def test_a_command_that_could_not_be_sent_is_tried_again_until_the_server_is_back(proxy: Proxy, prefix: str) -> None:
    async with Server(proxy.url) as server:
        proxy.down()
        call = asyncio.create_task(server.commands.call("INCR", f"{prefix}:a"))
        while proxy.connections < 2:  # noqa: ASYNC110 -- there is no event for "it has been tried twice"
            await asyncio.sleep(0.005)
        proxy.up()
        assert await call == 1


async def test_patience_ends_and_says_what_it_was_about() -> None:
    address = f"redis://127.0.0.1:{closed_port()}"
    async with Server(address, patience_ms=120) as server:
        started = asyncio.get_running_loop().time()
        with pytest.raises(ServerUnreachableError, match=rf"no server answers at {address}: .*Is it running"):
            await server.commands.call("PING")
        assert 0.02 < asyncio.get_running_loop().time() - started < 2


async def test_an_add_without_a_server_tells_its_caller_in_few_lines_and_the_rest_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Server(f"redis://127.0.0.1:{closed_port()}", patience_ms=0) as server:
        with pytest.raises(ServerUnreachableError) as caught:
            await Queue("q", server=server).add("n")
    shown = traceback.format_exception(caught.value)
    assert len("".join(shown).splitlines()) < 25
    assert "Connect call failed" in shown[-1]
    assert ".." not in shown[-1]
    (record,) = [record for record in caplog.records if record.name == "toril.wire.connection"]
    assert "ConnectionRefusedError" in caplog.text
    assert record.levelno == logging.DEBUG


async def test_without_patience_the_first_failure_counts() -> None:
    connection = Connection(ServerAddress(f"redis://127.0.0.1:{closed_port()}"))
    with pytest.raises(ServerUnreachableError):
        await connection.call("PING")
    await connection.aclose()


async def test_callers_that_wait_for_the_same_connecting_share_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_MS", 60)
    async with FakeServer(is_silent) as fake:
        connection = Connection(ServerAddress(fake.url))
        async with asyncio.TaskGroup() as callers:
            calls = [callers.create_task(error_of(connection.call("PING"))) for _ in range(50)]
        assert {type(call.result()) for call in calls} == {ServerUnreachableError}
        assert "no answer within 60ms" in str(calls[-1].result())
        assert fake.connections == 1
        await connection.aclose()


def test_pauses_between_tries_double_up_to_two_seconds() -> None:
    pauses = [pause for pause, _ in zip(backoff_ms(), range(9), strict=False)]
    limits = [50, 100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000]
    assert all(limit / 2 - 1 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))


# ── connecting ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_wrong_password_is_refused_without_being_told(toril_server_url: str, proxy: Proxy) -> None:
    parts = urlsplit(toril_server_url)
    own = f"{parts.scheme}://nobody:hunter2@{parts.netloc.rpartition('@')[2]}{parts.path}"
    for url in (own, proxy.url.replace("redis://", "redis://nobody:hunter2@")):  # by socket file (if that is how it is) and by TCP
        async with Server(url, patience_ms=0) as server:
            with pytest.raises(ServerRefusedError, match="invalid username-password pair") as caught:
                await server.commands.call("PING")
        assert "disabled. Check user" in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__


async def test_a_user_without_the_permissions_is_refused(server: Server, proxy: Proxy) -> None:
    user = f"toril-{secrets.token_hex(4)}"
    await server.commands.call("ACL", "SETUSER", user, "on", ">secret", "+@connection", "+ping")
    try:
        async with Server(proxy.url.replace("redis://", f"redis://{user}:secret@"), patience_ms=0) as limited:
            with pytest.raises(ServerRefusedError, match=r"no permissions to run the 'info' command.*Check user and password"):
                await limited.commands.call("PING")
    finally:
        await server.commands.call("ACL", "DELUSER", user)


async def test_a_database_that_is_not_there_is_refused(proxy: Proxy) -> None:
    async with Server(f"{proxy.url.rstrip('/0')}/9999", patience_ms=0) as server:
        with pytest.raises(ServerRefusedError, match="DB index is out of range"):
            await server.commands.call("PING")


async def test_another_database_is_another_place(toril_server_url: str, prefix: str) -> None:
    if urlsplit(toril_server_url).scheme == "unix":
        async with Proxy(toril_server_url) as proxy, Server(f"{proxy.url}/1") as one, Server(f"{proxy.url}/0") as zero:
            await one.commands.call("SET", f"{prefix}:a", "1", "PX", 5_000)
            assert await zero.commands.call("GET", f"{prefix}:a") is None


async def test_a_server_that_is_too_old_is_named_with_its_version() -> None:
    async def is_old(command: Command) -> bytes | None:
        return bulk("redis_version:6.2.14\r\n") if command[0] == b"INFO" else await greets(command)

    async with FakeServer(is_old) as fake, Server(fake.url) as server:
        with pytest.raises(ServerTooOldError, match=r"it has version 6\.2, and Toril needs 7\.0 or newer"):
            await server.commands.call("PING")
        with pytest.raises(ServerTooOldError):
            await server.wait_until_ready(60_000)  # at once: waiting makes it no younger


async def test_a_host_that_does_not_exist_cannot_be_reached() -> None:
    async with Server("redis://no-such-host.invalid", patience_ms=0) as server:
        with pytest.raises(ServerUnreachableError, match=r"no server answers at redis://no-such-host\.invalid"):
            await server.commands.call("PING")


async def test_a_missing_socket_file_cannot_be_reached() -> None:
    async with Server("unix:///no/such/socket", patience_ms=0) as server:
        with pytest.raises(ServerUnreachableError, match="/no/such/socket"):
            await server.commands.call("PING")


async def test_waiting_for_the_server_tells_every_failure_and_ends_with_it_being_there() -> None:
    loading = 3

    async def loads(command: Command) -> bytes | None:
        nonlocal loading
        if command[:2] == [b"INFO", b"server"] and loading:
            loading -= 1
            return b"-LOADING Redis is loading the dataset in memory\r\n"
        return await greets(command)

    failures: list[str] = []
    async with FakeServer(loads) as fake, Server(fake.url) as server:
        await server.wait_until_ready(10_000, lambda error: failures.append(str(error)))
        assert server.commands.is_connected
    assert len(failures) == 3
    assert all("it is still loading its data" in failure for failure in failures)


async def test_waiting_for_the_server_ends_after_its_time() -> None:
    failures: list[ServerUnreachableError] = []
    async with Server(f"redis://127.0.0.1:{closed_port()}") as server:
        with pytest.raises(ServerUnreachableError):
            await server.wait_until_ready(100, failures.append)
    assert failures


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://host", "unknown scheme 'http'"),
        ("localhost:6379", "unknown scheme 'localhost'"),
        ("", "unknown scheme ''"),
        ("redis://", "the host is missing"),
        ("unix://", "the path of the socket is missing"),
        ("redis://host/one", "the database must be a number, and 'one' is none"),
        ("redis://host:hunter2", "REDIS_URL 'redis://host:***': the port is not a number up to 65535. Write redis://host:6379/0"),
        ("redis://host:99999", "the port is not a number up to 65535"),
        ("redis://[::1:6379", "host or port can't be read; of user and password, @ : /"),
        ("redis://host/0?db=1", "nothing may follow the path"),
        ("redis://:hunter2/x@host", "host or port can't be read; of user and password, @ : /"),
        ("redis://user:123/hunter2@host:6379", "must be percent-encoded"),
        ("redis://user:123#hunter2@host:6379", "must be percent-encoded"),
        ("redis://user:123?hunter2@host:6379", "must be percent-encoded"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_where_it_is_given(url: str, reason: str) -> None:
    with pytest.raises(InvalidRedisUrlError) as caught:
        Server(url)
    assert reason in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value!r}"
    assert redact_text(str(caught.value)) == str(caught.value)
    assert caught.value.__cause__ is None


def test_an_address_is_printed_without_its_password() -> None:
    address = ServerAddress("rediss://app:hunter2@db.example.com:7000/3")
    assert str(address) == "rediss://app:***@db.example.com:7000/3"
    assert "hunter2" not in repr(address)
    options = {"username": "app", "password": "hunter2", "db": 3, "ssl": True}
    assert (address.hosts, address.connection_options) == ((("db.example.com", 7000),), options)
    assert ServerAddress("unix://app:p%40ss@/run/v%20k.sock").connection_options == {
        "username": "app",
        "password": "p@ss",
        "path": "/run/v k.sock",
    }


async def test_a_connection_keeps_its_name_when_it_connects_anew(server: Server, proxy: Proxy) -> None:
    connection = Connection(ServerAddress(proxy.url), client_name="bull:cQ==:w:one", patience_ms=5_000)
    for _ in range(2):
        assert await connection.call("CLIENT", "GETNAME", repeatable=True) == b"bull:cQ==:w:one"
        proxy.cut()
    await connection.aclose()


# ── scripts ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("all_scripts_again")
async def test_a_script_that_the_server_does_not_know_is_sent_to_it(server: Server, proxy: Proxy) -> None:
    text = f"#!lua flags=no-writes\nreturn ARGV[1] .. '{secrets.token_hex(8)}'"
    unknown = Script("unknown", text, hashlib.sha1(text.encode()).hexdigest(), 0)
    async with Server(proxy.url) as through:
        for times_loaded in (1, 1, 2):
            if times_loaded == 2:
                await server.commands.call("SCRIPT", "FLUSH")
            assert (await through.commands.run(unknown, [], "a")).startswith(b"a")
            assert sum(map(is_command("SCRIPT"), proxy.commands)) == times_loaded


async def test_every_script_compiles(server: Server) -> None:
    for name in ("add", "add_log", "counts", "get_jobs", "get_state", "remove", "renew_locks", "sweep_stalled", "turn"):
        script = scripts.load(name)
        assert (await server.commands.call("SCRIPT", "LOAD", script.text)).decode() == script.sha1


# ── closing ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_ends_the_calls_in_the_line_and_all_later_ones(server: Server, prefix: str, proxy: Proxy) -> None:
    connection = Connection(ServerAddress(proxy.url))
    pending = asyncio.create_task(error_of(connection.call("BLPOP", f"{prefix}:nothing", 0, block_ms=60_000)))
    await proxy.seen(is_command("BLPOP"))
    await connection.aclose()
    assert isinstance(await pending, ReplyLostError)
    assert not connection.is_connected
    with pytest.raises(QueueClosedError, match="is closed"):
        await connection.call("PING")
    await connection.aclose()
    assert readers() == []


async def test_closing_while_it_connects_leaves_no_connection() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hesitates(command: Command) -> bytes | None:
        if command[0] == b"INFO":
            asked.set()
            await may_answer.wait()
        return await greets(command)

    async with FakeServer(hesitates) as fake:
        connection = Connection(ServerAddress(fake.url))
        call = asyncio.create_task(error_of(connection.call("PING")))
        await asked.wait()
        await connection.aclose()
        may_answer.set()
        assert isinstance(await call, QueueClosedError)
        assert not connection.is_connected
        assert readers() == []


async def test_closing_what_was_never_used_is_harmless(server: Server) -> None:
    connection = server.connection(QueueKeys("bull", "q"), "never")
    await connection.aclose()
    await connection.aclose()


async def test_a_caller_cancelled_while_it_connects_leaves_the_connecting_to_the_next() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hesitates(command: Command) -> bytes | None:
        if command[0] == b"INFO":
            asked.set()
            await may_answer.wait()
        return await greets(command)

    async with FakeServer(hesitates) as fake, Server(fake.url) as server:
        first = asyncio.create_task(server.commands.call("PING"))
        second = asyncio.create_task(server.commands.call("PING"))
        await asked.wait()
        first.cancel()
        may_answer.set()
        assert await second == b"OK"
        assert first.cancelled()


async def _until_written(task: asyncio.Task[object]) -> None:
    """Let the loop turn until what was started is waiting for its reply."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
