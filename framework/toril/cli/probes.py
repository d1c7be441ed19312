"""`toril worker --probe-address`: answers over HTTP whether a worker lives, whether it does its work, and what it has done.

    GET /livez      200, or 503 where only a restart helps
    GET /readyz     200, or 503 with what is wrong
    GET /metrics    in Prometheus' text format

It runs in threads of its own: an event loop that is blocked can't tell that it is. Of several processes the supervisor answers for all.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol, cast

import typer

from toril.errors import MissingExtraError
from toril.telemetry.logs import get_logger
from toril.telemetry.redaction import redact_text

log = get_logger(__name__)

OPTION: Final = "--probe-address"
LOCAL: Final = "127.0.0.1"
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Probed(Protocol):
    """Who is asked, in some thread."""

    def livez(self) -> Sequence[str]:
        """Why only a restart would help; empty if it lives."""
        ...

    def readyz(self) -> Sequence[str]:
        """Why it doesn't do its work; empty if it does."""
        ...

    def metrics(self) -> bytes:
        """All metrics as text. Raises MissingExtraError."""
        ...


class ProbeListener(ThreadingHTTPServer):
    """Listens, and answers within `answering`."""

    daemon_threads = True  # one that waits for a slow answer mustn't keep the process
    probed: Probed

    @property
    def url(self) -> str:
        """Where it can be asked from this machine."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- its signature
        """Of what goes wrong with one request, tell what isn't the client's leaving, or our own end."""
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, CancelledError)):
            log.error("a probe can't be answered", exc_info=error)

    @contextmanager
    def answering(self, probed: Probed) -> Generator[None]:
        """Answer for this one, in this block."""
        self.probed = probed
        thread = threading.Thread(target=self.serve_forever, name="toril-probes", daemon=True)
        thread.start()
        log.info("probes", url=self.url)
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()


class ProbeListener6(ProbeListener):
    """The same on IPv6."""

    address_family = socket.AF_INET6


def listen(address: str) -> ProbeListener:
    """Take the port, before anything else begins.

    Raises:
        typer.BadParameter: the address can't be read, or used.
    """
    host, port = read_address(address)
    kind = ProbeListener6 if ":" in host else ProbeListener
    try:
        return kind((host, port), _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise typer.BadParameter(f"can't listen at {host}, port {port} ({reason}); choose another one", param_hint=OPTION) from None


def read_address(address: str) -> tuple[str, int]:
    """Host and port of `[HOST:]PORT`. Raises typer.BadParameter.

    >>> read_address("8080"), read_address("0.0.0.0:8080"), read_address("[::]:8080")
    (('127.0.0.1', 8080), ('0.0.0.0', 8080), ('::', 8080))
    """
    host, _, port = address.rpartition(":")
    is_clear = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if not (is_clear and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise typer.BadParameter(f"{address!r} is no port; write 8080, or 0.0.0.0:8080 to be heard on all addresses", param_hint=OPTION)
    return host.strip("[]") or LOCAL, int(port)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds that a client may be silent in the midst of a request
    server_version, sys_version = "toril", ""

    def do_GET(self) -> None:
        answers: dict[str, Callable[[Probed], None]] = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "ask for /livez, /readyz or /metrics"})
        else:
            answer(cast("ProbeListener", self.server).probed)

    def _livez(self, probed: Probed) -> None:
        self._send_state("alive", probed.livez())

    def _readyz(self, probed: Probed) -> None:
        self._send_state("ready", probed.readyz())

    def _metrics(self, probed: Probed) -> None:
        try:
            text = probed.metrics()
        except MissingExtraError as error:
            self._send_json(HTTPStatus.NOT_IMPLEMENTED, {"error": str(error)})
        else:
            self._send(HTTPStatus.OK, METRICS_TYPE, text)

    def _send_state(self, state: str, problems: Sequence[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        self._send_json(status, {state: not problems, "problems": [redact_text(problem) for problem in problems]})

    def _send_json(self, status: HTTPStatus, content: object) -> None:
        self._send(status, "application/json", json.dumps(content).encode() + b"\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- its signature
        """Say nothing: probes come every few seconds."""
