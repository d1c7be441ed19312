"""Asks a server on a unix socket a question with a plain blocking socket: quicker to set up than a client, and in any thread."""

from __future__ import annotations

import socket
from enum import Enum, auto
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 1.0


class Answer(Enum):
    """What a server says to PING."""

    READY = auto()
    LOADING = auto()
    NEEDS_PASSWORD = auto()
    NONE = auto()


def ping(path: Path, password: str | None = None) -> Answer:
    """Ask once whether the server serves; `Answer.NONE` if nobody answers within a second, or not in the protocol."""
    try:
        reply = call(path, password, "PING")
    except OSError:
        return Answer.NONE
    if reply.startswith(b"+PONG"):
        return Answer.READY
    if reply.startswith((b"-LOADING", b"-BUSY")):  # busy with a script: it serves others, and will serve us
        return Answer.LOADING if reply.startswith(b"-LOADING") else Answer.READY
    return Answer.NEEDS_PASSWORD if reply.startswith((b"-NOAUTH", b"-WRONGPASS")) else Answer.NONE


def configured_port(path: Path, password: str | None) -> int:
    """The TCP port on which a server that is ready listens, 0 if on none.

    Raises:
        OSError: it doesn't answer.
    """
    reply = call(path, password, "CONFIG", "GET", "port")
    last = reply.rstrip(b"\r\n").rpartition(b"\r\n")[2]
    return int(last) if last.isdigit() else 0


def call(path: Path, password: str | None, *command: str) -> bytes:
    """The raw reply to one command, which must fit into one packet; that to AUTH if it was refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        if password is not None:
            connection.sendall(_encode("AUTH", password))
            answer = connection.recv(4_096)
            if not answer.startswith(b"+OK"):
                return answer
        connection.sendall(_encode(*command))
        return connection.recv(4_096)


def _encode(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
