"""A process that uses the embedded server of a folder: `python -m tests.server.embedded_user FOLDER [MODE]`.

Once it has the server, it writes one line: the server's process id, whether this process started it, its address, and one more
number that depends on MODE. It leaves when its standard input ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import ask
from toril.embedded import EmbeddedServer, ensure_server


def main(folder: Path, mode: str) -> None:
    if mode == "unkind-signals":  # what nohup, a shell's background job or a careless host program may leave us with
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = ensure_server(folder) if mode in {"forever", "fork"} else EmbeddedServer(folder)
    server.open()
    extra = 0
    if mode == "count":
        extra = ask(server.url, "INCR", "count")
    elif mode == "fork":
        extra = fork_a_child_that_stays()
    elif mode == "subprocess":
        extra = subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False).pid
    server_pid = ask(server.url, "INFO", "server")["process_id"]
    sys.stdout.write(f"{server_pid} {server.started_here:d} {server.address} {extra}\n")
    sys.stdout.flush()
    if mode == "count":
        server.close()
        return
    sys.stdin.read()
    server.close()


def fork_a_child_that_stays() -> int:
    """The child keeps standard input as long as the test does, so it outlives us if we are killed."""
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    return child


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
