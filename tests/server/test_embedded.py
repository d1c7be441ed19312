"""The embedded server as several processes share it: who starts it, who stops it, and what kills leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.support import ask, eventually_now
from toril.embedded import EmbeddedServer, ensure_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

PROJECT: Final = Path(__file__).parents[2]


class User:
    """Another process that uses the server."""

    def __init__(self, folder: Path, mode: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.embedded_user", str(folder), mode],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, as a job of a terminal has
        )

    def wait_until_open(self) -> User:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert len(words) == 4, f"the user ended with status {self.process.wait()}"
        self.server_pid, self.started_here, self.address, self.extra = int(words[0]), words[1] == "1", words[2], int(words[3])
        return self

    def leave(self) -> int:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def close(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


StartUser = Callable[..., User]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "valkey"


@pytest.fixture
def user(folder: Path) -> Iterator[StartUser]:
    """Starts users of the folder; at the end all are gone, and with them the server and its keeper."""
    users: list[User] = []

    def start(mode: str = "") -> User:
        users.append(User(folder, mode))
        return users[-1]

    yield start
    for one in users:
        one.close()
    eventually_now(lambda: assert_no_process(folder))


def processes(folder: Path) -> dict[int, str]:
    """The server and its keeper, if they run, with their command lines. Both work in the folder; before that the keeper names it."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended while we looked
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"keeper.py {folder} " in line or (entry / "cwd").readlink() == folder:
                    found[int(entry.name)] = line
    return found


def assert_server_and_keeper(folder: Path) -> None:
    assert sorted("keeper.py" in line for line in processes(folder).values()) == [False, True]


def keeper_pid(folder: Path) -> int:
    return next(pid for pid, line in processes(folder).items() if "keeper.py" in line)


def assert_no_process(folder: Path) -> None:
    assert not processes(folder)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def test_a_second_process_finds_the_running_server(user: StartUser) -> None:
    first = user().wait_until_open()
    second = user().wait_until_open()
    assert (first.started_here, second.started_here) == (True, False)
    assert second.server_pid == first.server_pid
    assert second.address == first.address


def test_the_last_one_to_leave_stops_the_server(user: StartUser, folder: Path) -> None:
    first, second = user().wait_until_open(), user().wait_until_open()
    eventually_now(lambda: assert_server_and_keeper(folder))
    assert first.leave() == 0
    with EmbeddedServer(folder) as here:
        assert not here.started_here
        assert second.leave() == 0
        assert ask(here.url, "PING")
    eventually_now(lambda: assert_no_process(folder))
    assert not (folder / "valkey.sock").exists()


def test_eight_users_of_whom_three_are_killed_leave_no_process_and_no_damage(user: StartUser, folder: Path) -> None:
    users = [user() for _ in range(8)]
    pids = {one.wait_until_open().server_pid for one in users}
    assert len(pids) == 1
    assert sum(one.started_here for one in users) == 1
    with EmbeddedServer(folder) as here:
        for number in range(1_000):
            ask(here.url, "RPUSH", "numbers", number)
    starter = next(one for one in users if one.started_here)
    others = [one for one in users if one is not starter]
    starter.kill()
    others[0].kill()
    for one in others[1:-1]:
        assert one.leave() == 0
    others[-1].kill()
    eventually_now(lambda: assert_no_process(folder))
    with EmbeddedServer(folder) as here:
        assert here.started_here
        assert ask(here.url, "LRANGE", "numbers", 0, -1) == [b"%d" % number for number in range(1_000)]


def test_starts_and_stops_that_race_never_fail_and_lose_nothing(user: StartUser, folder: Path) -> None:
    rounds, together = 6, 4
    counts: list[int] = []
    for _ in range(rounds):
        # Each opens, counts, and closes at once, so the server of one is being stopped while the next one asks for it.
        counts += [one.wait_until_open().extra for one in [user("count") for _ in range(together)]]
    assert sorted(counts) == list(range(1, rounds * together + 1))


def test_opening_and_closing_again_at_once_works_every_time(folder: Path) -> None:
    for number in range(1, 21):
        with EmbeddedServer(folder) as server:
            assert ask(server.url, "INCR", "count") == number
    eventually_now(lambda: assert_no_process(folder))


def test_ctrl_c_reaches_neither_server_nor_keeper(user: StartUser, folder: Path) -> None:
    first = user().wait_until_open()
    with EmbeddedServer(folder) as here:
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.process.wait(20) != 0
        assert ask(here.url, "INFO", "server")["process_id"] == first.server_pid
        eventually_now(lambda: assert_server_and_keeper(folder))
    eventually_now(lambda: assert_no_process(folder))


def test_the_signals_that_the_starter_ignores_or_blocks_still_work_for_the_server(user: StartUser, folder: Path) -> None:
    assert user("unkind-signals").wait_until_open().leave() == 0
    eventually_now(lambda: assert_no_process(folder), within_s=5)  # the keeper kills only after 10 s
    assert "ready to exit" in (folder / "valkey.log").read_text()


def test_a_server_that_was_killed_is_started_again_with_its_data(user: StartUser, folder: Path) -> None:
    first = user().wait_until_open()
    with EmbeddedServer(folder) as here:
        ask(here.url, "SET", "kept", "yes")
    os.kill(first.server_pid, signal.SIGKILL)
    eventually_now(lambda: assert_ended(first.server_pid))
    assert (folder / "valkey.sock").exists()  # stale
    second = user().wait_until_open()
    assert second.started_here
    assert second.server_pid != first.server_pid
    with EmbeddedServer(folder) as here:
        assert ask(here.url, "GET", "kept") == b"yes"
    assert (first.leave(), second.leave()) == (0, 0)
    eventually_now(lambda: assert_no_process(folder))


def test_the_next_user_replaces_a_keeper_that_was_killed(user: StartUser, folder: Path) -> None:
    first = user().wait_until_open()
    killed = keeper_pid(folder)
    os.kill(killed, signal.SIGKILL)
    eventually_now(lambda: assert_ended(killed))
    second = user().wait_until_open()
    assert second.server_pid == first.server_pid
    assert keeper_pid(folder) != killed
    assert (second.leave(), first.leave()) == (0, 0)
    eventually_now(lambda: assert_no_process(folder))
    assert "ready to exit" in (folder / "valkey.log").read_text()


def test_a_starter_killed_in_the_middle_of_the_start_leaves_nothing_that_disturbs(user: StartUser, folder: Path) -> None:
    for _ in range(5):
        starter = user()
        eventually_now(lambda: assert_exists(folder / "keeper.lock"))
        starter.kill()
        (folder / "keeper.lock").unlink()  # so that the next round waits for its own; nobody is left who could hold it
        with EmbeddedServer(folder) as here:
            assert ask(here.url, "PING")
        eventually_now(lambda: assert_no_process(folder))


def test_a_folder_that_is_removed_under_its_server_can_be_used_anew(user: StartUser, folder: Path) -> None:
    first = user().wait_until_open()
    folder.rename(folder.with_name("moved"))
    second = user().wait_until_open()
    assert second.server_pid != first.server_pid
    assert first.leave() == 0
    eventually_now(lambda: assert_ended(first.server_pid))
    with EmbeddedServer(folder) as here:  # the old keeper must not have stopped the new server
        assert not here.started_here
        assert ask(here.url, "INFO", "server")["process_id"] == second.server_pid


def test_a_forked_child_that_stays_does_not_keep_the_server(user: StartUser, folder: Path) -> None:
    parent = user("fork").wait_until_open()
    try:
        parent.kill()
        assert not ended(parent.extra)
        eventually_now(lambda: assert_no_process(folder))
    finally:
        os.kill(parent.extra, signal.SIGKILL)


def test_an_executed_program_that_stays_does_not_keep_the_server(user: StartUser, folder: Path) -> None:
    parent = user("subprocess").wait_until_open()
    parent.kill()
    assert not ended(parent.extra)
    eventually_now(lambda: assert_no_process(folder))


def test_a_server_for_the_life_of_a_process_ends_with_it(user: StartUser, folder: Path) -> None:
    assert user("forever").wait_until_open().leave() == 0
    eventually_now(lambda: assert_no_process(folder))


def test_ensure_server_gives_the_same_server_for_the_same_folder(folder: Path) -> None:
    server = ensure_server(folder)
    try:
        assert ensure_server(folder) is server
        assert ask(server.url, "PING")
    finally:
        server.close()
    eventually_now(lambda: assert_no_process(folder))


def test_lists_of_processes_tell_whose_server_it_is(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        pid = ask(server.url, "INFO", "server")["process_id"]
        assert processes(folder)[pid].rstrip().endswith(f" in {folder}")
    eventually_now(lambda: assert_no_process(folder))


def test_only_the_owner_may_enter_the_folder_and_read_what_is_in_it(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with EmbeddedServer(folder) as server:
        ask(server.url, "SET", "secret", "x")
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes[folder] == 0o700
    assert not {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


def test_the_settings_are_those_of_a_queue(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        settings = ask(server.url, "CONFIG", "GET", "append*", "save", "maxmemory-policy", "port")
    wanted = {
        b"appendonly": b"yes",
        b"appendfsync": b"everysec",
        b"save": b"",
        b"maxmemory-policy": b"noeviction",
        b"port": b"0",
    }
    assert wanted.items() <= settings.items()


async def test_it_is_an_async_context_manager(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        assert server.url.startswith("unix:///")
        assert server.is_open
    assert not server.is_open


async def test_being_cancelled_while_it_opens_leaves_nothing_open(folder: Path) -> None:
    server = EmbeddedServer(folder)
    opening = asyncio.create_task(server.__aenter__())
    await asyncio.sleep(0)  # let it begin
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not server.is_open
    await asyncio.to_thread(eventually_now, lambda: assert_no_process(folder))


def test_it_may_be_opened_and_closed_twice_and_again(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.open()
    server.open()
    assert ask(server.url, "PING")
    server.close()
    server.close()
    with server:
        assert ask(server.url, "PING")


def test_a_path_too_long_for_a_socket_gets_a_short_way(tmp_path: Path) -> None:
    folder = tmp_path / ("a-folder-with-a-long-name-" * 4) / "var" / "valkey"
    server = EmbeddedServer(folder)
    with server, EmbeddedServer(folder) as second:
        ask(server.url, "SET", "key", "long")
        assert second.url == server.url
        link = Path(server.address.removeprefix("unix://")).parent
        assert link.readlink() == folder
    eventually_now(lambda: assert_gone(link))
    with server:
        assert ask(server.url, "GET", "key") == b"long"
    eventually_now(lambda: assert_gone(link))


def test_a_path_with_unusual_characters_works(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" ü %41 folder'
    with EmbeddedServer(folder) as server:
        assert ask(server.url, "SET", "key", "value")
    eventually_now(lambda: assert_no_process(folder))
    with EmbeddedServer(folder) as server:
        assert ask(server.url, "GET", "key") == b"value"


def test_a_port_wants_the_generated_password_that_no_command_line_or_log_shows(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedServer(folder, port=port) as server, EmbeddedServer(folder, port=0) as other:
        password = (folder / "password").read_text().strip()
        assert len(password) > 30
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        with pytest.raises(redis.AuthenticationError):
            ask(f"redis://127.0.0.1:{port}", "PING")
        assert server.tcp_url is not None
        assert ask(server.tcp_url, "PING")
        assert ask(server.url, "PING")
        assert other.url == server.url
        assert password not in server.address + repr(server) + (folder / "valkey.log").read_text()
        eventually_now(lambda: assert_server_and_keeper(folder))
        assert not [line for line in processes(folder).values() if password in line]
    eventually_now(lambda: assert_no_process(folder))
    with EmbeddedServer(folder) as server:
        assert server.tcp_url is None
        assert ask(server.url, "PING")  # without a port it wants no password again


def assert_ended(pid: int) -> None:
    assert ended(pid)


def assert_exists(path: Path) -> None:
    assert path.exists()


def assert_gone(path: Path) -> None:
    assert not path.is_symlink()
