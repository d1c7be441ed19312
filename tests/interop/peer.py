"""The Node libraries in a process of their own, spoken to by lines of JSON: see `lines.mjs`."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from tests.line_process import PATIENCE_S, LineProcess

FOLDER: Final = Path(__file__).parent


class NodePeer(LineProcess):
    """`async with NodePeer(url, prefix) as node: await node.ask("add", queue="q", name="n", data={}, opts={})`.

    Args:
        url: of the server.
        prefix: of the queues' keys.
        program: what Node runs.
        library: the npm package that it takes for BullMQ.
        patience_s: how long anything may take.
    """

    def __init__(
        self, url: str, prefix: str, program: str = "peer.mjs", *, library: str = "bullmq", patience_s: float = PATIENCE_S
    ) -> None:
        self.prefix = prefix
        self.library = library
        settings = {"connection": connection_options(url), "prefix": prefix, "library": library}
        super().__init__(["node", program], FOLDER, settings=settings, patience_s=patience_s)


def connection_options(url: str) -> dict[str, object]:
    """How ioredis spells an address."""
    parts = urlsplit(url)
    options: dict[str, object] = {"maxRetriesPerRequest": None}
    if parts.scheme == "unix":
        options["path"] = unquote(parts.path)
        if "db" in (query := parse_qs(parts.query)):
            options["db"] = int(query["db"][0])
    else:
        options |= {"host": parts.hostname or "127.0.0.1", "port": parts.port or 6379}
        if parts.path.strip("/"):
            options["db"] = int(parts.path.strip("/"))
    if parts.password:
        options["password"] = unquote(parts.password)
    if parts.username:
        options["username"] = unquote(parts.username)
    return options
