"""Starts the embedded server, and stops it when nobody uses it any more.

A program of its own: `python -I -S keeper.py FOLDER BINARY [LINK]`, the server's settings on standard input. It needs nothing but
the standard library and imports as little of it as it can, because everybody's start waits for its own. It prints `ok`, or why the
server could not be executed; whoever calls it holds `start.lock` and, shared, `users.lock`.

    caller ──► this program ──fork──► keeper ──fork──► server
                    │ ends at once       │                │ holds server.lock for its life
                    ▼                    │ holds keeper.lock for its life
        the caller has no child left     ▼
        that it would have to reap    waits for users.lock, exclusively: every user is gone
                                      gives it up again, takes start.lock: nobody starts now
                                      takes users.lock, without waiting: still nobody? else from the start
                                      stops the server, frees the locks in this order: keeper, users, start

Taking start.lock while holding users.lock would be a deadlock: a caller takes them the other way round. Freeing the keeper's
lock last would let a caller see a keeper that is just leaving. A keeper that finds a server without a keeper (that was killed)
adopts it, and a caller that finds a keeper without a server makes this program start only the server.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys

STOP_LIMIT_S = 10
"""How long the server may take to write the rest of its append-only file before it is killed."""


def main() -> None:
    """Let a child do the work, so that the caller gets its answer from a process that has ended."""
    folder, binary = sys.argv[1:3]
    link = sys.argv[3] if len(sys.argv) > 3 else None
    settings = sys.stdin.buffer.read()
    # What our caller ignores or blocks is inherited, by the server too; one that ignores SIGTERM can't be stopped.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.fork():
        os._exit(0)  # without what an interpreter does at its end: the child's copy will do it
    os.umask(0o077)
    # From here on all names are relative: if somebody moves or removes the folder, and another server lives under its
    # name, we and our server still mean our own. And every kernel takes `valkey.sock`, however long the way to it is.
    os.chdir(folder)
    keeper = Keeper(folder, link)
    is_keeper = keeper.try_lock(keeper.keeper_lock)
    problem = keeper.start(binary, settings) if settings else None
    report(problem or "ok")
    if is_keeper and problem is None:
        keeper.keep()


def report(text: str) -> None:
    """Answer the caller, who reads until nobody has the pipe open any more."""
    os.write(1, text.encode(errors="replace"))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


class Keeper:
    """The server, seen from the process that ends it. `child` is its process id, 0 where it is no child of ours or is gone."""

    def __init__(self, folder: str, link: str | None) -> None:
        self.folder, self.link = folder, link
        # In this order, since the kernel closes them so if we are killed: see above.
        self.keeper_lock, self.users_lock, self.start_lock = (
            os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for name in ("keeper", "users", "start")
        )
        self.child = 0

    def start(self, binary: str, settings: bytes) -> str | None:
        """Fork and execute the server; None if that worked, else why not."""
        failure, failed = os.pipe()  # closed by a successful exec
        child = os.fork()
        if not child:
            try:
                self.become_server(binary, settings)
            except BaseException as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
                os.write(failed, f"{binary}: {error}".encode(errors="replace"))
            os._exit(127)
        os.close(failed)
        problem = os.read(failure, 4_096)
        os.close(failure)
        if problem:
            os.waitpid(child, 0)
            return problem.decode()
        self.child = child
        signal.signal(signal.SIGCHLD, self.reap)
        self.reap()  # it may have ended before we listened
        return None

    def become_server(self, binary: str, settings: bytes) -> None:
        os.setsid()  # else Ctrl-C in the terminal of whoever started it would reach it before its users
        alive = os.open("server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        signal.alarm(STOP_LIMIT_S)
        fcntl.flock(alive, fcntl.LOCK_EX)  # nobody holds it longer than it takes to look whether it is free
        signal.alarm(0)
        os.set_inheritable(alive, True)
        text, write_end = os.pipe()
        os.write(write_end, settings)  # far smaller than what a pipe holds
        os.close(write_end)
        log = os.open("valkey.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((text, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.execv(binary, [binary, "-"])

    def keep(self) -> None:
        """Wait until nobody uses the server, then stop it."""
        while True:
            fcntl.flock(self.users_lock, fcntl.LOCK_EX)
            fcntl.flock(self.users_lock, fcntl.LOCK_UN)
            fcntl.flock(self.start_lock, fcntl.LOCK_EX)
            if self.try_lock(self.users_lock):
                break
            fcntl.flock(self.start_lock, fcntl.LOCK_UN)
        self.stop()
        for lock in (self.keeper_lock, self.users_lock, self.start_lock):
            fcntl.flock(lock, fcntl.LOCK_UN)

    def stop(self) -> None:
        if self.child:
            self.stop_child()
        else:
            self.stop_adopted()
        if self.link is not None and os.path.islink(self.link) and self.is_same_folder():  # noqa: PTH114  # pathlib is slow to import
            os.unlink(self.link)  # noqa: PTH108

    def stop_child(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = self.child
        if not child:
            return  # it ended just before; and process id 0 would mean ourselves
        signal.signal(signal.SIGALRM, lambda _number, _frame: os.kill(child, signal.SIGKILL))
        signal.alarm(STOP_LIMIT_S)
        os.kill(child, signal.SIGTERM)  # still ours: nobody has reaped it
        os.waitpid(child, 0)
        signal.alarm(0)

    def stop_adopted(self) -> None:
        """Ask a server that is no child of ours, and wait until it has freed its lock. There is no safe way to kill it: ids are reused."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(STOP_LIMIT_S)
                connection.connect("valkey.sock")
                if os.path.exists("password"):  # noqa: PTH110
                    with open("password") as file:  # noqa: PTH123
                        connection.sendall(f"AUTH {file.read().strip()}\r\n".encode())
                        connection.recv(4_096)
                connection.sendall(b"SHUTDOWN\r\n")
                connection.recv(4_096)
        except OSError:
            return  # nobody there: it is gone, or it is going
        alive = os.open("server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        signal.alarm(STOP_LIMIT_S)  # ends us, and with us our locks
        fcntl.flock(alive, fcntl.LOCK_EX)
        signal.alarm(0)

    def is_same_folder(self) -> bool:
        """Whether the name of the folder still leads to ours."""
        try:
            found, ours = os.stat(self.folder), os.stat(".")  # noqa: PTH116
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def reap(self, *_: object) -> None:
        try:
            if self.child and os.waitpid(self.child, os.WNOHANG)[0]:
                self.child = 0
        except ChildProcessError:
            self.child = 0  # a signal interrupted us here, and its handler was quicker

    @staticmethod
    def try_lock(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


if __name__ == "__main__":
    main()
