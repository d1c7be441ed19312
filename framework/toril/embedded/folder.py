"""The folder in which the embedded server lives: where it is, whether it can be used, and what lies in it."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toril.errors import EmbeddedServerError

FOLDER_VARIABLE: Final = "TORIL_EMBEDDED_DIR"

LONGEST_SOCKET_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes that fit into `sun_path`, without the closing NUL."""

_USE_ANOTHER: Final = f"Set {FOLDER_VARIABLE} to a folder of your own on a local disk, or set REDIS_URL to a server that you run."

# flock() there is missing, private to one host, or emulated, and a unix socket can't be reached from another host.
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    "9p afs afpfs beegfs ceph cifs coda davfs fuse.glusterfs fuse.grpcfuse fuse.sshfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 "
    "ocfs2 prl_fs smb2 smb3 smbfs vboxsf".split()
)


def default_folder() -> Path:
    """`TORIL_EMBEDDED_DIR` if set, else `var/valkey` under the project.

    The project is the nearest folder, from the current one upwards, that holds a `pyproject.toml` or a `.git`; so processes
    which were started in different folders of it still meet. Where there is none, it is the current folder.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    here = Path.cwd()
    project = next(
        (folder for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file() or (folder / ".git").exists()), here
    )
    return project / "var" / "valkey"


@dataclass(frozen=True)
class ServerFolder:
    """What lies where. Only its owner may enter the folder (0700), so the socket needs no password."""

    path: Path

    @property
    def users_lock(self) -> Path:
        """Held shared by every process that uses the server, and exclusively by the keeper while it stops it."""
        return self.path / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the server."""
        return self.path / "start.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper for its life."""
        return self.path / "keeper.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server for its life: it inherits the lock, and the kernel frees it however the server ends."""
        return self.path / "server.lock"

    @property
    def log(self) -> Path:
        return self.path / "valkey.log"

    @property
    def password(self) -> Path:
        """There (0600) once a port was asked for."""
        return self.path / "password"

    @property
    def socket(self) -> Path:
        return self.path / "valkey.sock"

    @property
    def link(self) -> Path:
        """A short way to the folder, for the case that the path of the socket is too long for the kernel.

        The server binds the socket by its relative name, but its clients need a path that leads there from anywhere.
        """
        runtime = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        name = f"toril-{os.geteuid()}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}"
        return Path(runtime) / name

    @property
    def needs_link(self) -> bool:
        return len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH

    def prepare(self) -> None:
        """Make the folder, or make sure that the one there is ours alone.

        Raises:
            EmbeddedServerError: it can't be made or written, belongs to somebody else, holds other things, or lies on a network.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise self._unusable(f"the folder can't be made: {error.strerror}") from error
        if found.st_uid != os.geteuid():
            raise self._unusable(f"the folder belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}")
        file_system = file_system_of(self.path)
        if file_system in _NETWORK_FILE_SYSTEMS:
            raise self._unusable(
                f"the folder lies on a network file system ({file_system}), where neither its locks nor its socket can be relied on"
            )
        try:
            # It will be closed to everybody else, so a mistaken /tmp or home folder must not be taken. The lock of the
            # users is always the first thing in it, so one look tells, even while another process prepares it.
            names = {entry.name for entry in self.path.iterdir()}
            if names and self.users_lock.name not in names:
                raise self._unusable("the folder holds other files")
            if stat.S_IMODE(found.st_mode) != 0o700:
                self.path.chmod(0o700)
            self.users_lock.touch(mode=0o600)
        except OSError as error:
            raise self._unusable(f"the folder can't be written: {error.strerror}") from error

    def client_socket(self) -> Path:
        """The path of the socket for clients; makes the link if it needs one.

        Raises:
            EmbeddedServerError: it needs the link, and somebody else took its place.
        """
        if not self.needs_link:
            return self.socket
        link = self.link
        try:
            link.symlink_to(self.path)
        except FileExistsError:
            pass
        except OSError as error:
            raise self._unusable(f"its path is too long for a socket, and the link {link} to it can't be made: {error.strerror}") from error
        # Where everybody may write, somebody else may have made it before us; nobody else can change it afterwards (sticky bit).
        if not link.is_symlink() or link.lstat().st_uid != os.geteuid() or link.readlink() != self.path:
            raise self._unusable(f"its path is too long for a socket, and something else has the name of the link {link} to it")
        if len(os.fsencode(link / self.socket.name)) > LONGEST_SOCKET_PATH:
            raise self._unusable(f"its path is too long for a socket, and so is that of the link {link} to it")
        return link / self.socket.name

    def read_password(self) -> str | None:
        try:
            return self.password.read_text().strip() or None
        except FileNotFoundError:
            return None

    def ensure_password(self) -> str:
        """The password, which stays the same, so that other tools can keep it. Call it under the start lock."""
        password = self.read_password()
        if password is None:
            password = secrets.token_urlsafe(32)
            descriptor = os.open(self.password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(password + "\n")
        return password

    def _unusable(self, reason: str) -> EmbeddedServerError:
        return EmbeddedServerError(str(self.path), reason, _USE_ANOTHER)


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that holds `path`, or None where the system doesn't tell (it is not Linux)."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, answer = path.resolve(), -1, None
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        place = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # Of several on one place, the last one mounted counts.
        if real.is_relative_to(place) and len(place.parts) >= best:
            best, answer = len(place.parts), after.split(" ")[0]
    return answer
