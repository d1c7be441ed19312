"""A queue: adds jobs, looks at them, removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from toril.calls import explained
from toril.cancellation import run_to_end
from toril.clock import Clock, SystemClock
from toril.errors import InvalidOptionError, QueueClosedError
from toril.queues.adding import QueueAdding
from toril.queues.dead_letters import DeadLetters
from toril.queues.drafts import Recipe, Recipes
from toril.queues.getters import QueueGetters
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.job_schedulers import JobSchedulers
from toril.queues.limits import QueueLimits
from toril.queues.listeners import EventSource, Listeners
from toril.queues.opening import ADDRESS, open_server, prefix_or_default
from toril.queues.operations import QueueOperations
from toril.queues.option_checks import check_whole
from toril.queues.option_parts import KeepJobs, check_keep_jobs
from toril.queues.options import NO_OPTIONS, JobOptions, check_job_options
from toril.queues.results import Results, ResultWatch
from toril.queues.type_arguments import type_arguments
from toril.queues.upkeep import QueueUpkeep
from toril.wire.codec import JobRecord
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.jobs import NewJob
from toril.wire.keys import QueueKeys

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)
D = TypeVar("D")
R = TypeVar("R")


class Queue(
    QueueAdding[DataT, ResultT],
    QueueGetters[DataT, ResultT],
    QueueOperations,
    QueueLimits,
    QueueUpkeep,
    EventSource,
    Generic[DataT, ResultT],
):
    """A queue of jobs: `async with Queue("emails") as emails: await emails.add("welcome", {"to": "ann@example.com"})`.

    Nothing connects before the first call. `Queue[Resize, str]("images")` says of what type all its jobs are; a `JobDef` says it
    of the jobs of one name.

    Args:
        name: the queue's name; must not hold a colon.
        prefix: what its keys begin with; the same as on the Node side. Not set: `TORIL_PREFIX`, else `bull`, and on a Cluster
            `{bull}`.
        url: where the server is. Without one `REDIS_URL` is used, and without that the embedded server.
        server: a server that is open already and is shared; the queue doesn't close it.
        clock: what time it is; tests move theirs.
        default_job_options: what its jobs have unless their definition, handler or `add` says otherwise.
        keep_completed: what its worker keeps of completed jobs that don't say it themselves; None keeps all.
        keep_failed: the same for failed jobs.
        max_events: about how many events the stream keeps; not set: what stands in the server already, else 10,000.
        dead_letter: the queue, or its name, that gets a letter about each job that fails for good; see `dead_letters`.

    Raises:
        InvalidOptionError, InvalidRedisUrlError
    """

    @explained("Queue", ADDRESS)
    def __init__(
        self,
        name: str,
        *,
        prefix: str | None = None,
        url: str | None = None,
        server: Server | None = None,
        clock: Clock | None = None,
        default_job_options: JobOptions = NO_OPTIONS,
        keep_completed: KeepJobs | None = None,
        keep_failed: KeepJobs | None = None,
        max_events: int | None = None,
        dead_letter: str | Queue[Any, Any] | None = None,
    ) -> None:
        check_whole("max_events", max_events, 1)
        check_job_options("default_job_options", default_job_options)
        check_keep_jobs("keep_completed", keep_completed)
        check_keep_jobs("keep_failed", keep_failed)
        self.prefix = prefix = prefix_or_default(prefix, url, server)
        self.keys = QueueKeys(prefix, name)
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self.default_job_options = default_job_options
        self.keep_completed = keep_completed
        self.keep_failed = keep_failed
        self._recipes = Recipes(default_job_options)
        self._has_types = False
        self._url = url
        self._max_events = max_events
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = server
        self._commands = None if server is None else QueueCommands(server, self.keys)
        self._results: Results | None = None
        self.listeners = Listeners(name)
        self.on_added: list[Callable[[NewJob, str], object]] = []
        """Called with each job that this object has added, as it went to the wire, and its id."""
        self.result_watch: ResultWatch | None = None
        """What watches each wait for a result: that of a testing module, whose clock may stand still for ever."""
        self.letters: Queue[Any, Any] | None = None
        """Where letters about jobs go that fail for good. Workers write them; nothing is sent through this object."""
        if dead_letter is not None:
            self.send_letters_to(
                Queue(dead_letter, prefix=prefix, server=server, clock=clock) if isinstance(dead_letter, str) else dead_letter
            )

    # ── open and close ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that opened it, and that its connections belong to; None before `open`."""
        return self._loop

    @property
    def server(self) -> Server:
        """The server it uses. Raises QueueClosedError before it is known (see `open`) and after `close`."""
        if self._server is None or self._is_closed:
            raise QueueClosedError(f"queue {self.name!r}", "closed" if self._is_closed else "not open")
        return self._server

    @property
    def commands(self) -> QueueCommands:
        """The operations of the protocol on this queue. Raises what `server` raises."""
        if self._commands is None or self._is_closed:
            raise QueueClosedError(f"queue {self.name!r}", "closed" if self._is_closed else "not open")
        return self._commands

    @property
    def results(self) -> Results:
        """What `Job.result` waits with. Raises what `server` raises."""
        if self._results is None:
            self._results = Results(self.server, self.commands, self.clock)
        return self._results

    async def open(self) -> Self:
        """Find the server, and start the embedded one if that is needed. The first call does it otherwise. May be called twice.

        Raises:
            QueueClosedError: after `close`; a queue can't be opened again.
            EmbeddedServerError, InvalidRedisUrlError
        """
        async with self._opening:
            if self._is_closed:
                raise QueueClosedError(f"queue {self.name!r}")
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.get_running_loop()
            if self._server is None:
                self._server = await self._stack.enter_async_context(open_server(self._url))
                self._commands = QueueCommands(self._server, self.keys)
        return self

    async def close(self) -> None:
        """Close what the queue has opened itself; who waits for a result gets QueueClosedError. May be called twice."""
        await run_to_end(self._close())

    async def _close(self) -> None:
        async with self._opening:
            self._is_closed = True
            if self._results is not None:
                await self._results.aclose()
            await self.listeners.aclose()
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # ── what belongs to it ────────────────────────────────────────────────────────────────────────────────────

    def send_letters_to(self, letters: Queue[Any, Any]) -> None:
        """From now on let workers of this queue write a letter into that one about each job that fails for good.

        Raises:
            InvalidOptionError: it is this queue itself, or (on a Cluster) lies elsewhere: the prefixes need the same hash tag.
        """
        if letters.keys == self.keys:
            raise InvalidOptionError("dead_letter", letters.name, "a queue can't be its own: name another one")
        if not self.keys.shares_slot_with(letters.keys):
            reason = f"both queues must lie in one slot, and their prefixes {self.prefix!r} and {letters.prefix!r} have different hash tags"
            raise InvalidOptionError("dead_letter", letters.name, reason)
        self.letters = letters

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """The letters in **this** queue, if others name it as their `dead_letter`."""
        return DeadLetters(self)

    @cached_property
    def job_schedulers(self) -> JobSchedulers:
        """Rules that add jobs again and again."""
        return JobSchedulers(self)

    def __repr__(self) -> str:
        return f"<Queue {self.keys.qualified_name}>"

    async def _use(self) -> QueueCommands:
        if self._commands is None or self._loop is None or self._loop.is_closed():
            await self.open()
        commands = self.commands
        if self._max_events is not None:
            count, self._max_events = self._max_events, None
            try:
                await commands.set_max_events(count)
            except BaseException:
                self._max_events = count  # the next call tries again
                raise
        return commands

    def _recipe(self, name: str, definition: JobDef[Any, Any] | None) -> Recipe:
        if not self._has_types:  # they are noted on the queue after __init__
            self._recipes.set_types(*type_arguments(self, Queue))
            self._has_types = True
        return self._recipes.find(name, definition)

    def _job(self, record: JobRecord, definition: JobDef[Any, Any] | None = None) -> Job[Any, Any]:
        recipe = self._recipe(record.name, definition)
        return Job(self, record, payload=recipe.payload, result_type=recipe.result)
