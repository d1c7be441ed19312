"""`QueueModule`: registers queues, so that they can be injected by name.

QueueModule.for_root(…)              once, optional: where the server is, defaults for every queue     global
QueueModule.register_queue("emails") in each module that uses the queue; the same queue twice is one   exports the queue
     └── imports QueueCoreModule     the server, the clock, JobLogger                                  global
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from toril.clock import Clock, SystemClock
from toril.di import JOB_REF, DynamicModule, Inject, Place, Scope, Token, caller_place, global_module, module, provide
from toril.errors import InvalidOptionError
from toril.modules.settings import TorilSettings
from toril.modules.tokens import CLOCK, SERVER, QueueToken
from toril.queues.opening import open_server
from toril.queues.options import NO_OPTIONS, JobOptions, QueueOptions
from toril.queues.queue import Queue
from toril.telemetry.context import LogContext
from toril.telemetry.logs import JobLogger
from toril.wire.connection import Server
from toril.wire.keys import DEFAULT_PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueModuleOptions:
    """What `for_root` sets for all queues of an application. What isn't set comes from the settings, then from the defaults."""

    url: str | None = None
    """Where the server is. Not set: the settings' `redis_url`, then `REDIS_URL`, then the embedded server."""
    prefix: str | None = None
    """What the keys of every queue begin with, unless its own options say otherwise. Not set: the settings' prefix, else `bull`."""
    default_job_options: JobOptions = NO_OPTIONS
    """For every queue; its own come before."""

    def __repr__(self) -> str:  # without the address, which may hold a password
        return f"QueueModuleOptions(prefix={self.prefix!r}, default_job_options={self.default_job_options!r})"


@dataclass(frozen=True, slots=True)
class QueueEnvironment:
    """Where the queues of one application live. A test replaces it, to give every queue a prefix of its own."""

    url: str | None
    prefix: str
    default_job_options: JobOptions
    is_test: bool = False

    def prefix_of(self, options: QueueOptions) -> str:
        """The prefix of one queue. In a test two queues of different prefixes stay apart, under the test's."""
        if options.prefix is None:
            return self.prefix
        return f"{self.prefix}-{options.prefix}" if self.is_test else options.prefix


def environment_for_test(url: str, prefix: str) -> Callable[..., QueueEnvironment]:
    """A factory for a test's environment: its server and prefix, with the defaults that the application sets itself."""

    def make(root: Annotated[QueueModuleOptions | None, Inject(ROOT_OPTIONS)]) -> QueueEnvironment:
        return QueueEnvironment(url, prefix, NO_OPTIONS if root is None else root.default_job_options, is_test=True)

    return make


ROOT_OPTIONS: Final = Token[QueueModuleOptions]("QUEUE_MODULE_OPTIONS")
ENVIRONMENT: Final = Token[QueueEnvironment]("QUEUE_ENVIRONMENT")


def _environment(root: Annotated[QueueModuleOptions | None, Inject(ROOT_OPTIONS)], settings: TorilSettings | None) -> QueueEnvironment:
    options = root or QueueModuleOptions()
    url, prefix = options.url, options.prefix
    if settings is not None:
        if url is None and settings.redis_url is not None:
            url = settings.redis_url.get_secret_value()
        prefix = settings.prefix if prefix is None else prefix
    return QueueEnvironment(url, DEFAULT_PREFIX if prefix is None else prefix, options.default_job_options)


async def _server(environment: Annotated[QueueEnvironment, Inject(ENVIRONMENT)]) -> AsyncIterator[Server]:
    async with open_server(environment.url) as server:
        yield server


def _job_logger(job: Annotated[LogContext | None, Inject(JOB_REF)]) -> JobLogger:
    return JobLogger(fields={} if job is None else job.log_fields())


@global_module
@module(
    providers=[
        provide(CLOCK, use_factory=SystemClock, inject=[]),
        provide(ENVIRONMENT, use_factory=_environment),
        provide(SERVER, use_factory=_server),
        provide(JobLogger, use_factory=_job_logger, scope=Scope.JOB),
    ],
    exports=[CLOCK, ENVIRONMENT, SERVER, JobLogger],
)
class QueueCoreModule:
    """What all registered queues share. `QueueModule` imports it where it is needed."""


@module()
class QueueModule:
    """Registers queues. Its methods return modules for `imports`."""

    @staticmethod
    def for_root(*, url: str | None = None, prefix: str | None = None, default_job_options: JobOptions = NO_OPTIONS) -> DynamicModule:
        """Set server and defaults of all queues, once, in the root module. `QueueModuleOptions` says what they mean."""
        options = QueueModuleOptions(url=url, prefix=prefix, default_job_options=default_job_options)
        return _root_module([provide(ROOT_OPTIONS, use_value=options)], (), options)

    @staticmethod
    def for_root_async(
        *,
        use_factory: Callable[..., QueueModuleOptions | Awaitable[QueueModuleOptions]],
        inject: Sequence[object] | None = None,
        imports: Sequence[object] = (),
    ) -> DynamicModule:
        """The same with options that a function makes when the application starts.

        Args:
            use_factory: a plain or a coroutine function.
            inject: what it is called with; by default what its annotations ask for.
            imports: modules that provide this.
        """
        provider = provide(ROOT_OPTIONS, use_factory=cast("Callable[..., Any]", use_factory), inject=inject)
        return _root_module([provider], imports, (use_factory, inject))

    @staticmethod
    def register_queue(*queues: str | QueueOptions, default_job_options: JobOptions | None = None) -> DynamicModule:
        """Register queues, by name or with options; several at once. They can then be injected where this module is imported.

        Two modules that register the same queue share it; with other options that is an error.

        Args:
            default_job_options: for all queues named here by name only.
        """
        if not queues:
            raise InvalidOptionError("register_queue", queues, "name at least one queue")
        place = caller_place(1)
        registered = [_queue_module(_queue_options(queue, default_job_options), place) for queue in queues]
        return registered[0] if len(registered) == 1 else _group(registered, place)

    @staticmethod
    def register_queue_async(
        name: str,
        *,
        use_factory: Callable[..., QueueOptions | Awaitable[QueueOptions]],
        inject: Sequence[object] | None = None,
        imports: Sequence[object] = (),
    ) -> DynamicModule:
        """Register one queue whose options a function makes when the application starts; arguments as in `for_root_async`.

        Raises (at start):
            InvalidOptionError: the options name another queue.
        """
        options = Token[QueueOptions](f"options of queue {name}")

        def make(
            made: Annotated[QueueOptions, Inject(options)],
            environment: Annotated[QueueEnvironment, Inject(ENVIRONMENT)],
            server: Annotated[Server, Inject(SERVER)],
            clock: Annotated[Clock, Inject(CLOCK)],
        ) -> Queue[Any, Any]:
            if made.name != name:
                raise InvalidOptionError("name", made.name, f"register_queue_async({name!r}) got the options of another queue")
            return _make_queue(made, environment, server, clock)

        return DynamicModule(
            QueueModule,
            key=f"queue {name}",
            name=f"QueueModule({name})",
            imports=[QueueCoreModule, *imports],
            providers=[
                provide(options, use_factory=cast("Callable[..., Any]", use_factory), inject=inject),
                provide(QueueToken(name), use_factory=make, inject=[options, ENVIRONMENT, SERVER, CLOCK]),
            ],
            exports=[QueueToken(name)],
            options=(use_factory, inject),
            place=caller_place(1),
        )


def _root_module(providers: Sequence[object], imports: Sequence[object], options: object) -> DynamicModule:
    return DynamicModule(
        QueueModule,
        key="for_root",
        name="QueueModule.for_root",
        imports=[QueueCoreModule, *imports],
        providers=providers,
        exports=[ROOT_OPTIONS],
        is_global=True,
        options=options,
        place=caller_place(2),
    )


def _queue_options(queue: str | QueueOptions, default_job_options: JobOptions | None) -> QueueOptions:
    if isinstance(queue, QueueOptions):
        return queue
    return QueueOptions(queue, default_job_options=default_job_options or NO_OPTIONS)


def _queue_module(options: QueueOptions, place: Place) -> DynamicModule:
    def make(environment: QueueEnvironment, server: Server, clock: Clock) -> Queue[Any, Any]:
        return _make_queue(options, environment, server, clock)

    token = QueueToken(options.name)
    return DynamicModule(
        QueueModule,
        key=f"queue {options.name}",
        name=f"QueueModule({options.name})",
        imports=[QueueCoreModule],
        providers=[provide(token, use_factory=make, inject=[ENVIRONMENT, SERVER, CLOCK])],
        exports=[token],
        options=options,
        place=place,
    )


def _group(modules: Sequence[DynamicModule], place: Place) -> DynamicModule:
    names = ", ".join(str(one.name) for one in modules)
    return DynamicModule(QueueModule, name=f"[{names}]", imports=modules, exports=modules, place=place)


def _make_queue(options: QueueOptions, environment: QueueEnvironment, server: Server, clock: Clock) -> Queue[Any, Any]:
    return Queue(
        options.name,
        prefix=environment.prefix_of(options),
        server=server,
        clock=clock,
        default_job_options=options.default_job_options.merged_over(environment.default_job_options),
        keep_completed=options.keep_completed,
        keep_failed=options.keep_failed,
        max_events=options.max_events,
    )
