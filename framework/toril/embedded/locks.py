"""Locks on files, which the kernel frees when the process that holds them ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from toril.clock import SystemClock
from toril.errors import EmbeddedServerError
from toril.units import format_ms

_PAUSES_MS: Final = (1,) * 5 + (2,) * 50 + (10,) * 50 + (50,)


_forking = threading.Lock()
"""Held while a process forks, and while a lock is being taken, so that no child gets a lock that it doesn't know of."""

_held: set[FileLock] = set()


class Deadline:
    """A bound in real time on waiting for the operating system: a test that moves `Clock` must not bend it."""

    def __init__(self, limit_ms: int, abandoned: threading.Event) -> None:
        self.limit_ms = limit_ms
        self._ends_at = time.monotonic() + limit_ms / 1_000
        self._abandoned = abandoned
        self._pauses = 0

    def left_ms(self) -> int:
        return round((self._ends_at - time.monotonic()) * 1_000)

    def pause(self) -> bool:
        """Wait a moment: short ones at first, longer ones later. False if the time is up, or nobody waits for the outcome any more."""
        pause_ms = _PAUSES_MS[min(self._pauses, len(_PAUSES_MS) - 1)]
        self._pauses += 1
        return self.left_ms() > 0 and not SystemClock().wait(self._abandoned, pause_ms)


class FileLock:
    """A lock on a file. It belongs to the open file, not to the process: two in one process exclude each other as well.

    Neither a program that is executed nor a forked child inherits it: else a child that outlives us would hold it on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self, mode: int = fcntl.LOCK_EX) -> bool:
        """Take it if it's free; `mode` is `LOCK_EX` or `LOCK_SH`.

        Raises:
            EmbeddedServerError: the file can't be opened, or its file system knows no locks.
        """
        try:
            with _forking:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                except BaseException:
                    os.close(descriptor)
                    raise
                self._descriptor = descriptor
                _held.add(self)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EmbeddedServerError(
                str(self.path.parent),
                f"{self.path.name} can't be locked: {error.strerror}",
                "Set TORIL_EMBEDDED_DIR to a folder of your own on a local disk, or set REDIS_URL to a server that you run.",
            ) from error
        return True

    def acquire(self, deadline: Deadline, mode: int = fcntl.LOCK_EX) -> None:
        """Take it as soon as it's free.

        Raises:
            EmbeddedServerError: it didn't get free in time.
        """
        # The kernel could wake us, but then not be asked to give up after a while (signals reach the main thread only).
        while not self.try_acquire(mode):
            if not deadline.pause():
                raise EmbeddedServerError(
                    str(self.path.parent),
                    f"another process has held {self.path.name} for {format_ms(deadline.limit_ms)}: it is starting or stopping the server",
                    f"Try again; if that doesn't help, find the process that holds it (`fuser {self.path}`) and end it.",
                )

    def release(self) -> None:
        """Give it up. Harmless when it isn't held."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            os.close(descriptor)  # in a forked child this closes a copy, and the lock stays with the parent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on this file. Looking takes it for a moment, shared."""
    with FileLock(path) as lock:
        return not lock.try_acquire(fcntl.LOCK_SH)


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock.release()
    _forking.release()


os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_after_fork_in_child)
