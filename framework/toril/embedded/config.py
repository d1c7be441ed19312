"""The embedded server's settings, as the text that it reads from its standard input."""

from __future__ import annotations

import os

from toril.embedded.folder import ServerFolder


def server_config(folder: ServerFolder, port: int, password: str | None) -> str:
    """The settings of a server for a queue: what was acknowledged is in the append-only file, and nothing is ever evicted.

    Text on standard input, so that the password stands neither in the arguments, which every user of the machine can read, nor in
    a file more than needed.
    """
    # The socket has a relative name, since the server enters its folder: the path may be too long for the kernel; and if the
    # folder is moved, the server at its end must not remove the socket of another one that lives under the old name by then.
    title = "{title} {listen-addr} in " + str(folder.path).replace("{", "{{")
    settings = [
        ("dir", str(folder.path)),
        ("logfile", str(folder.log)),
        ("unixsocket", folder.socket.name),
        ("proc-title-template", title),
        ("unixsocketperm", "600"),
        ("port", str(port)),
        ("bind", "127.0.0.1"),
        ("protected-mode", "yes"),
        ("daemonize", "no"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        ("always-show-logo", "no"),
        ("crash-log-enabled", "yes"),
    ]
    if password is not None:
        settings.append(("requirepass", password))
    return "".join(f"{name} {_quoted(value)}\n" for name, value in settings)


def _quoted(value: str) -> str:
    """As the server's parser wants it; anything unusual as `\\xHH`, since a path may hold any byte."""
    plain = (chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in '"\\' else f"\\x{byte:02x}" for byte in os.fsencode(value))
    return f'"{"".join(plain)}"'
