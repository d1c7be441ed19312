"""SIGTERM and SIGINT: heard in one place, from a process's first moment until it is gone.

    own ──► import modules ──► hold ──► create ──► run ──► close ──► end_with ──► leave the loop ──► exit
             one ends the               one is told to whoever               one ends the process,
             process                    hears, or kept for the next          with the code that it has

A loop's own `add_signal_handler` leaves gaps: `remove_signal_handler` puts the system's behaviour in its place, by which SIGTERM kills, and
SIGINT raises KeyboardInterrupt inside of whatever runs in that moment, a job's handler or the loop itself. So here nothing is taken away
between one who hears and the next, and nothing is raised once the loop runs.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from types import FrameType
from typing import Final, NoReturn, TypeAlias

Hears: TypeAlias = Callable[[signal.Signals], object]

_BOTH: Final = (signal.SIGTERM, signal.SIGINT)

_BY_SIGNAL: Final = 128
"""A shell's code for a process that a signal ended: this, and the signal's number."""


class _Phase(Enum):
    BORROWED = "whoever runs the process has handlers of his own, which are put back when nobody hears any more"
    BEGINNING = "one ends the process"
    HELD = "one is told, or kept"
    ENDING = "one ends the process at once"


class StopSignals:
    """Both signals of this process. There is one: `STOP_SIGNALS`. Its methods belong to the main thread."""

    def __init__(self) -> None:
        self._phase = _Phase.BORROWED
        self._code = 0
        self._hearing: list[Hears] = []
        self._untold: list[signal.Signals] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._undo = ExitStack()

    # ── the life of a process that is ours ────────────────────────────────────────────────────────────────────

    def own(self) -> None:
        """From now on, until the process is gone, both signals come here. Until `hold` they end it: SIGINT raises KeyboardInterrupt,
        SIGTERM SystemExit with 143. May be called twice."""
        if self._phase is _Phase.BORROWED:
            self._phase = _Phase.BEGINNING
            atexit.register(_ignore)  # the interpreter would put the system's handlers back before it is gone
            os.register_at_fork(after_in_child=_give_back)  # whoever terminates a process that a job has forked expects it to end
            for one in _BOTH:
                signal.signal(one, self._on_signal)

    def hold(self) -> None:
        """From now on nothing is raised: a signal is told to those who hear, or waits for the next who does.

        Raises:
            SystemExit: one has come already, and what it raised was lost: in a bare `except:` of a module that was imported, in a
                `__del__`, or in a weak reference's callback.
        """
        if self._phase is _Phase.ENDING:
            raise SystemExit(self._code)
        self._phase = _Phase.HELD

    def end_with(self, code: int) -> None:
        """All is closed, and the process ends with this code. Another signal ends it at once: something hangs, a thread perhaps."""
        self._code, self._phase = code, _Phase.ENDING

    # ── those who hear ────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def heard_by(self, hears: Hears) -> Generator[None]:
        """Tell each signal, in the running loop, to this one, in this block. Nothing happens in another thread than the main one."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        if not self._hearing:
            self._begin()
        self._hearing.append(hears)
        try:
            yield
        finally:
            self._hearing.remove(hears)
            if not self._hearing:
                self._loop = None
                self._undo.close()

    def _begin(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._undo.enter_context(_waking(loop))
        if self._phase is _Phase.BORROWED:
            self._untold.clear()
            for one in _BOTH:
                before = signal.signal(one, self._on_signal)
                if before is not None:  # else it isn't Python's
                    self._undo.callback(signal.signal, one, before)
        loop.call_soon(self._tell)

    def _tell(self) -> None:
        while self._untold and self._hearing:
            one = self._untold.pop(0)
            for hears in tuple(self._hearing):
                hears(one)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Runs between any two steps of the main thread: what hears must not, so it is called by the loop."""
        if self._phase is _Phase.ENDING:
            leave_at_once(self._code)
        if self._phase is _Phase.BEGINNING:
            self.end_with(_BY_SIGNAL + number)
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_BY_SIGNAL + number)
        self._untold.append(signal.Signals(number))
        if self._loop is not None:
            with suppress(RuntimeError):  # it has been closed
                self._loop.call_soon_threadsafe(self._tell)


STOP_SIGNALS: Final = StopSignals()


def leave_at_once(code: int) -> NoReturn:
    """End the process: the loop's end and the interpreter's would wait for threads, which can't be stopped."""
    with suppress(Exception):  # whatever was being written in this moment
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Let a signal wake the loop. Else one that comes just before the loop begins to wait would be seen only after that."""
    ours, its = socket.socketpair()
    with ours, its:
        ours.setblocking(False)
        its.setblocking(False)
        before = signal.set_wakeup_fd(its.fileno(), warn_on_full_buffer=False)
        if before != -1:  # somebody is woken already: uvloop always, asyncio for those who add handlers to it
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(ours, ours.recv, 1 << 12)
        try:
            yield
        finally:
            loop.remove_reader(ours)
            now = signal.set_wakeup_fd(-1)
            if now != its.fileno():  # somebody's who came later
                signal.set_wakeup_fd(now)


def _ignore() -> None:
    for one in _BOTH:
        signal.signal(one, signal.SIG_IGN)


def _give_back() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
