"""How a command reaches queues: through an application's module, or with no more than the address of a server.

--app app.main:AppModule    its settings, prefixes, queues and where their dead letters go; nothing else of it is made
--redis-url, --prefix       whatever queues the server holds under the prefix; else REDIS_URL and TORIL_PREFIX, else the embedded server
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toril.cli.common import CommonOptions
from toril.cli.errors import UsageError
from toril.clock import SystemClock
from toril.errors import TorilError
from toril.queues.opening import open_server, prefix_or_default
from toril.queues.queue import Queue
from toril.spelling import near
from toril.wire.connection import Server
from toril.wire.discovery import queue_names

if TYPE_CHECKING:
    from toril.di import Graph


class UnknownQueueError(TorilError):
    """The server holds no queue of this name, and the application registers none."""

    def __init__(self, name: str, server: str, prefix: str, known: list[str]) -> None:
        super().__init__(name, server, prefix, known)
        self.name, self.server, self.prefix, self.known = name, server, prefix, known

    def __str__(self) -> str:
        close = near(self.name, self.known)
        if close:
            hint = f"did you mean {' or '.join(close)}?"
        else:
            hint = f"there are {', '.join(self.known)}" if self.known else "there are none: is it the right server and prefix?"
        return f"there is no queue {self.name!r} at {self.server} under the prefix {self.prefix!r}; {hint}"


class Queues:
    """The queues that a command can work on. `connected` makes it.

    Args:
        server: where they are; it answers.
        prefix: that of all but registered ones, which may have others.
        registered: those that the application's modules register, by name.
        graph: the application's modules; None where only an address is known.
    """

    def __init__(self, server: Server, prefix: str, registered: dict[str, Queue[Any, Any]], graph: Graph | None) -> None:
        self.server, self.prefix, self.registered, self.graph = server, prefix, registered, graph
        self._opened: dict[str, Queue[Any, Any]] = {}

    @property
    def now_ms(self) -> int:
        """What time it is here."""
        return SystemClock().now_ms()

    async def names(self) -> list[str]:
        """The names of registered queues, and of all that the server holds under the prefix, in order."""
        return sorted({*self.registered, *await queue_names(self.server, self.prefix)})

    async def all(self) -> list[Queue[Any, Any]]:
        """These queues."""
        return [self.at(name) for name in await self.names()]

    async def get(self, name: str) -> Queue[Any, Any]:
        """The queue of this name. Raises UnknownQueueError, with what is near."""
        if name not in self.registered and name not in (known := await self.names()):
            raise UnknownQueueError(name, str(self.server.address), self.prefix, known)
        return self.at(name)

    async def some(self, names: list[str]) -> list[Queue[Any, Any]]:
        """The queues of these names, or all if there are none. Raises UnknownQueueError."""
        return [await self.get(name) for name in dict.fromkeys(names)] if names else await self.all()

    def at(self, name: str, prefix: str | None = None) -> Queue[Any, Any]:
        """The queue of this name, whether there is one or not; `prefix` where it isn't the usual one."""
        registered = self.registered.get(name)
        if registered is not None and prefix in (None, registered.prefix):
            return registered
        queue = Queue[Any, Any](name, prefix=prefix or self.prefix, server=self.server)
        return self._opened.setdefault(queue.keys.base, queue)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the queues of a command come from: an application's root module, or an address and a prefix."""

    app: str | None = None
    root: type | None = None
    """The module that `app` names."""
    redis_url: str | None = None
    prefix: str | None = None


def find_source(common: CommonOptions) -> Source:
    """What the options and the environment lead to. An application is imported here: in an event loop Ctrl-C would not end that.

    Raises:
        UsageError, ModuleNotLoadedError
    """
    app = common.app
    if app is not None and (common.redis_url is not None or common.prefix is not None):
        raise UsageError("give either --app, whose settings tell server and prefix, or --redis-url and --prefix")
    if app is None and common.redis_url is None and common.prefix is None:
        app = os.environ.get("TORIL_APP") or None
    if app is None:
        return Source(redis_url=common.redis_url, prefix=common.prefix or None)
    # Imported only where it is needed: with modules and injection a command takes 1.3 s to start instead of 0.8 s (measured).
    from toril.cli.loading import load_module

    return Source(app=app, root=load_module(app))


@asynccontextmanager
async def connected(source: Source) -> AsyncGenerator[Queues]:
    """The queues that a source leads to, with a server that answers: it is tried once.

    Raises:
        UsageError, GraphErrors, SettingsError, InvalidRedisUrlError
        ServerError: nobody answers, or refuses.
    """
    if source.root is None:
        prefix = prefix_or_default(source.prefix, source.redis_url)
        async with open_server(source.redis_url) as server:
            await server.wait_until_ready(0)
            yield Queues(server, prefix, {}, None)
        return
    from toril.modules.queues_alone import application_queues

    async with application_queues(source.root) as application:
        if application.server is None or application.prefix is None:
            raise UsageError(f"{source.app} registers no queue: there is nothing to look at")
        await application.server.wait_until_ready(0)
        yield Queues(application.server, application.prefix, application.queues, application.graph)
