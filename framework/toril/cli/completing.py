"""Completes names of queues in a shell: what `toril queue show em<TAB>` asks.

Somebody waits at the keyboard, and asked for nothing to be done: no server is started, and whatever goes wrong, or takes too long,
there is just nothing to choose from.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Collection
from contextlib import redirect_stderr, redirect_stdout
from typing import Final, NoReturn

from toril.cli.common import CommonOptions
from toril.cli.connecting import find_source
from toril.embedded.folder import ServerFolder, default_folder
from toril.embedded.probe import Answer, ping
from toril.queues.opening import open_server, prefix_or_default
from toril.wire.discovery import queue_names

LIMIT_S: Final = 2.0
"""How long the shell waits at most."""

_PLAIN: Final = frozenset("@%+=,./-_")
"""What means nothing to a shell, besides letters and digits: a name becomes a part of somebody's command line as it is."""


def queues_to_choose_from(common: CommonOptions, incomplete: str) -> list[str]:
    """The names that begin so, in order: those that the application registers, or that the server holds."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # an application may print when it is imported
            names = _names(common)
    except (Exception, SystemExit):  # noqa: BLE001 -- nobody is there to hear of it
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return sorted(name for name in names if name.startswith(incomplete) and all(each.isalnum() or each in _PLAIN for each in name))


def _give_up(_number: int, _frame: object) -> NoReturn:
    os._exit(0)  # an import, or the look-up of a host, can't be ended otherwise


def _names(common: CommonOptions) -> Collection[str]:
    source = find_source(common)
    if source.root is None:
        return asyncio.run(_names_at(source.redis_url, source.prefix))
    from toril.modules.application_graph import graph_of
    from toril.modules.tokens import QueueToken

    return {token.token_name for token in graph_of(source.root).tokens() if isinstance(token, QueueToken)}


async def _names_at(url: str | None, prefix: str | None) -> Collection[str]:
    if not url and not os.environ.get("REDIS_URL") and ping(ServerFolder(default_folder()).socket) is Answer.NONE:
        return ()  # the embedded server doesn't run
    async with open_server(url) as server:
        await server.wait_until_ready(0)
        return await queue_names(server, prefix_or_default(prefix, url))
