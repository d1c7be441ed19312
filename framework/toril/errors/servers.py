"""What can be wrong with the Redis or Valkey server."""

from __future__ import annotations

from toril.errors.base import TorilError


class ServerError(TorilError):
    """Something about the Redis or Valkey server. `address` never holds a password; `reason` has no full stop at its end."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason.rstrip(".")

    def __str__(self) -> str:
        return f"server at {self.address}: {self.reason}"


class ServerUnreachableError(ServerError):
    """Nobody answers at the address, or not in time."""

    def __str__(self) -> str:
        return (
            f"no server answers at {self.address}: {self.reason}. Is it running, and is REDIS_URL right? "
            "(Unset REDIS_URL to use the embedded server.)"
        )


class ServerRefusedError(ServerError):
    """The server answers but refuses: wrong password, missing permission, a command it doesn't know."""

    def __str__(self) -> str:
        return f"the server at {self.address} refuses: {self.reason}. Check user and password in REDIS_URL, and the user's ACL."


class ServerFullError(ServerError):
    """The server's memory is full (`maxmemory`), so it takes nothing new; what runs goes on, and its outcomes are written."""

    def __str__(self) -> str:
        return (
            f"the memory of the server at {self.address} is full, and nothing was written: {self.reason}. "
            "Raise maxmemory, keep fewer ended jobs (keep_completed, keep_failed, Queue.clean), or let workers catch up and add again."
        )


class ServerTooOldError(ServerError):
    """The server's version is below the oldest one that the protocol works with."""

    def __init__(self, address: str, version: str, needed: str) -> None:
        super().__init__(address, f"it has version {version}, and Toril needs {needed} or newer")
        self.args = (address, version, needed)
        self.version, self.needed = version, needed


class ServerKindError(ServerError):
    """The address is written for another kind of server than the one that answers: `mode` is standalone, cluster or sentinel."""

    def __init__(self, address: str, mode: str) -> None:
        fix = {
            "sentinel": "it is a Sentinel: write redis+sentinel://host:26379/name-of-the-primary",
            "cluster": "it is a node of a Cluster: write redis+cluster://host:port",
        }
        super().__init__(address, fix.get(mode, "it is neither a Sentinel nor a node of a Cluster: write redis://host:port"))
        self.args = (address, mode)
        self.mode = mode


class ReadOnlyServerError(ServerUnreachableError):
    """A replica answers, which can't be written to; `primary` is the server that it follows.

    It is tried again like any that can't be reached: after a failover it may be the primary itself.
    """

    def __init__(self, address: str, primary: str) -> None:
        super().__init__(address, f"it is a read-only replica of {primary}")
        self.args = (address, primary)
        self.primary = primary

    def __str__(self) -> str:
        return (
            f"the server at {self.address} is a read-only replica of {self.primary}, and can't be written to. "
            "Let REDIS_URL name the primary, or the Sentinels that know it: redis+sentinel://host:26379/name"
        )


class EmbeddedServerError(ServerError):
    """The embedded server could not be found, started or reached; `reason` tells the cause, `fix` the way out."""

    def __init__(self, address: str, reason: str, fix: str) -> None:
        super().__init__(address, reason)
        self.args = (address, reason, fix)
        self.fix = fix

    def __str__(self) -> str:
        return f"embedded server ({self.address}): {self.reason}. {self.fix}"
