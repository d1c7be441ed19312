"""What can be wrong with the Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toril.errors.base import TorilError


class ServerError(TorilError):
    """Something about the Redis or Valkey server. `address` never holds a password; `reason` has no full stop at its end."""

    stopped_script = False
    """Whether it stopped a script half-way: what that had done by then stays done, and sent again it would stop again."""

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
    """The server answers but refuses: wrong password, missing permission, or its own rules don't let it write now."""

    def __init__(self, address: str, reason: str, fix: str = "Check user and password in REDIS_URL, and the user's ACL") -> None:
        super().__init__(address, reason)
        self.args = (address, reason, fix)
        self.fix = fix.rstrip(".")

    def __str__(self) -> str:
        return f"the server at {self.address} refuses: {self.reason}. {self.fix}."


class ServerFullError(ServerError):
    """The server's memory is full (`maxmemory`), so it takes nothing new; what runs goes on, and its outcomes are written."""

    def __str__(self) -> str:
        return (
            f"the memory of the server at {self.address} is full, and nothing was written: {self.reason}. "
            "Raise maxmemory, keep fewer ended jobs (keep_completed, keep_failed, Queue.clean), or let workers catch up and add again."
        )


class CommandFailedError(ServerError):
    """The server could not carry out a command: `command` is its name, or that of the script, `target` its key, or the queue."""

    def __init__(self, address: str, reason: str, command: str, target: str) -> None:
        super().__init__(address, reason)
        self.args = (address, reason, command, target)
        self.command, self.target = command, target

    def __str__(self) -> str:
        return f"the server at {self.address} could not do {self._what}: {self.reason}. {self._fix}"

    @property
    def _what(self) -> str:
        return f"{self.command} on {self.target}" if self.target else self.command

    @property
    def _fix(self) -> str:
        return "Look at what other programs have written there; if none did, this is an error in Toril: please report it."


class DamagedKeyError(CommandFailedError):
    """The same, since a key holds something that doesn't belong there. `problems`: which keys, and what is wrong with each; empty if
    it wasn't found out."""

    def __init__(self, address: str, reason: str, command: str, target: str, problems: Sequence[str] = ()) -> None:
        super().__init__(address, reason, command, target)
        self.args = (address, reason, command, target, problems)
        self.problems = tuple(problem.rstrip(".") for problem in problems)

    def __str__(self) -> str:
        if not self.problems:
            return super().__str__()
        return f"could not do {self._what} at {self.address}: the key {', and the key '.join(self.problems)}. {self._fix}"

    @property
    def _fix(self) -> str:
        return "Another program has written there: mend or delete what doesn't belong there, and try again."


class DamagedJobsError(DamagedKeyError):
    """An operation on many jobs has left some of them as they are, since a key of theirs or of their parents holds something that doesn't
    belong there; all others are done.

    Fields: `jobs`, by ids of jobs that were left what refused each (of the first 100); `count`, how many were left; `done`, how many others
    are done; `command`, the operation; `target`, the queue.
    """

    _SHOWN = 5

    def __init__(self, address: str, command: str, target: str, jobs: Mapping[str, str], count: int, done: int) -> None:
        problems = list(dict.fromkeys(jobs.values()))
        super().__init__(address, f"{count} jobs were left as they are", command, target, problems)
        self.args = (address, command, target, dict(jobs), count, done)
        self.jobs, self.count, self.done = dict(jobs), count, done

    def __str__(self) -> str:
        shown = [f"job {job_id}, since the key {problem.rstrip('.')}" for job_id, problem in [*self.jobs.items()][: self._SHOWN]]
        more = f"; and {self.count - len(shown)} more" if self.count > len(shown) else ""
        what = "1 job" if self.count == 1 else f"{self.count} jobs"
        told = "; ".join(shown) + more
        return f"{self.command} of queue {self.target!r} has left {what} as before, and done all others: {told}. {self._fix}"


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
        self.fix = fix.rstrip(".")

    def __str__(self) -> str:
        return f"embedded server ({self.address}): {self.reason}. {self.fix}"
