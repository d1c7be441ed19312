"""`QueueModule`: registers queues, so that they can be injected by name.

QueueModule.for_root(…)              once, optional: where the server is, defaults for every queue     global
QueueModule.register_queue("emails") in each module that uses the queue; the same queue twice is one   exports the queue
     └── imports QueueCoreModule     the server, the clock, JobLogger                                  global
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final

from typing_extensions import Unpack

from toril.calls import explained, explained_class
from toril.clock import Clock, SystemClock
from toril.di import (
    JOB_REF,
    DynamicModule,
    Inject,
    OptionWays,
    Place,
    Provider,
    Scope,
    Token,
    caller_place,
    global_module,
    module,
    option_providers,
    provide,
)
from toril.errors import InvalidCallError, InvalidOptionError
from toril.modules.settings import TorilSettings
from toril.modules.tokens import CLOCK, SERVER, FlowProducerToken, QueueOptionsToken, QueueToken
from toril.queues.flows import FlowProducer
from toril.queues.opening import ADDRESS, open_server, prefix_or_default
from toril.queues.options import NO_OPTIONS, JobOptions, QueueOptions, check_job_options
from toril.queues.queue import Queue
from toril.telemetry.context import LogContext, current_log_fields
from toril.telemetry.logs import JobLogger
from toril.wire.connection import Server

_BY_PLACE: Final = 'names and options come without a keyword: write register_queue("emails"), or register_queue(QueueOptions("emails", …))'
_NAMED: Final = dict.fromkeys(("name", "queue", "options", *(each.name for each in fields(QueueOptions))), _BY_PLACE)


@explained_class(fixes=ADDRESS)
@dataclass(frozen=True, kw_only=True, slots=True)
class QueueModuleOptions:
    """What `for_root` sets for all queues of an application. What isn't set comes from the settings, then from the defaults."""

    url: str | None = None
    """Where the server is. Not set: the settings' `redis_url`, then `REDIS_URL`, then the embedded server."""
    prefix: str | None = None
    """What the keys of every queue begin with, unless its own options say otherwise. Not set: the settings' `prefix`, then
    `TORIL_PREFIX`, then `bull`, and on a Cluster `{bull}`."""
    default_job_options: JobOptions = NO_OPTIONS
    """For every queue; its own come before."""

    def __post_init__(self) -> None:
        if self.prefix == "":
            raise InvalidOptionError("prefix", self.prefix, "a prefix must not be empty")
        check_job_options("default_job_options", self.default_job_options)

    def __repr__(self) -> str:  # without the address, which may hold a password
        return f"QueueModuleOptions(prefix={self.prefix!r}, default_job_options={self.default_job_options!r})"


@dataclass(frozen=True, slots=True)
class QueueEnvironment:
    """Where the queues of one application live. A test replaces it, to give every queue a prefix of its own."""

    url: str | None = field(repr=False)  # may hold a password
    prefix: str
    default_job_options: JobOptions
    is_test: bool = False

    def prefix_of(self, options: QueueOptions) -> str:
        """The prefix of one queue. In a test two queues of different prefixes stay apart, under the test's."""
        if options.prefix is None:
            return self.prefix
        return f"{self.prefix}-{options.prefix}" if self.is_test else options.prefix


def environment_at(url: str, prefix: str, *, is_test: bool) -> Callable[..., QueueEnvironment]:
    """A factory for the environment of a test or a child process: this server and prefix, with the defaults that the application sets."""

    def make(root: Annotated[QueueModuleOptions | None, Inject(ROOT_OPTIONS)]) -> QueueEnvironment:
        return QueueEnvironment(url, prefix, NO_OPTIONS if root is None else root.default_job_options, is_test=is_test)

    return make


ROOT_OPTIONS: Final = Token[QueueModuleOptions]("QUEUE_MODULE_OPTIONS")
ENVIRONMENT: Final = Token[QueueEnvironment]("QUEUE_ENVIRONMENT")


def _environment(root: Annotated[QueueModuleOptions | None, Inject(ROOT_OPTIONS)], settings: TorilSettings | None) -> QueueEnvironment:
    options = root or QueueModuleOptions()
    if not isinstance(options, QueueModuleOptions):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's function made them
        raise InvalidOptionError("use_factory", options, "for_root_async needs QueueModuleOptions(url=…, prefix=…)")
    url, prefix = options.url, options.prefix
    if settings is not None:
        if url is None and settings.redis_url is not None:
            url = settings.redis_url.get_secret_value()
        prefix = settings.prefix if prefix is None else prefix
    return QueueEnvironment(url, prefix_or_default(prefix, url), options.default_job_options)


async def _server(environment: Annotated[QueueEnvironment, Inject(ENVIRONMENT)]) -> AsyncIterator[Server]:
    async with open_server(environment.url) as server:
        yield server


def _job_logger(job: Annotated[LogContext | None, Inject(JOB_REF)]) -> JobLogger:
    return JobLogger(fields=current_log_fields()) if job is None else JobLogger(context=job)


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
    @explained(fixes=ADDRESS)
    def for_root(*, url: str | None = None, prefix: str | None = None, default_job_options: JobOptions = NO_OPTIONS) -> DynamicModule:
        """Set server and defaults of all queues, once, in the root module. `QueueModuleOptions` says what they mean."""
        options = QueueModuleOptions(url=url, prefix=prefix, default_job_options=default_job_options)
        return _root_module([provide(ROOT_OPTIONS, use_value=options)], (), options)

    @staticmethod
    @explained()
    def for_root_async(*, imports: Sequence[object] = (), **ways: Unpack[OptionWays[QueueModuleOptions]]) -> DynamicModule:
        """The same with options that are made when the application starts.

        Args:
            ways: `use_factory=` with `inject=`, `use_class=` or `use_existing=`; see `OptionWays`.
            imports: modules that provide what these need.

        Raises:
            InvalidProvider: none or several of them.
        """
        return _root_module(option_providers(ROOT_OPTIONS, **ways), imports, ways)

    @staticmethod
    @explained(fixes=_NAMED)
    def register_queue(*queues: str | QueueOptions, default_job_options: JobOptions | None = None) -> DynamicModule:
        """Register queues, by name or with options; several at once. They can then be injected where this module is imported.

        Two modules that register the same queue share it; with other options that is an error.

        Args:
            default_job_options: for the queues that are given by name; `QueueOptions` have their own.

        Raises:
            InvalidOptionError: no queue, or a name that can't be one.
        """
        if not queues:
            raise InvalidOptionError("register_queue", queues, "name at least one queue")
        for queue in queues:
            if not isinstance(queue, (str, QueueOptions)):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
                raise InvalidCallError("QueueModule.register_queue", f"takes names and QueueOptions; {_BY_PLACE}", "queues")
        check_job_options("default_job_options", default_job_options)
        if default_job_options is not None and all(isinstance(queue, QueueOptions) for queue in queues):
            raise InvalidOptionError(
                "default_job_options", default_job_options, "no queue is given by name: put them into its QueueOptions"
            )
        place = caller_place(1)
        registered = [_registered(_queue_options(queue, default_job_options), place) for queue in queues]
        if len(registered) == 1:
            return registered[0]
        names = ", ".join(str(one.name) for one in registered)
        return DynamicModule(QueueModule, name=f"[{names}]", imports=registered, exports=registered, place=place)

    @staticmethod
    @explained()
    def register_flow_producer(name: str = "flows") -> DynamicModule:
        """Register a producer of flows, which can then be injected by its name where this module is imported.

        Queues that the application registers count with their default options; others are found by their names.
        """
        if not name:
            raise InvalidOptionError("register_flow_producer", name, "write a name, such as flows")

        async def open_producer(environment: QueueEnvironment, server: Server, clock: Clock) -> AsyncIterator[FlowProducer]:
            async with FlowProducer(prefix=environment.prefix, server=server, clock=clock) as producer:
                yield producer

        token = FlowProducerToken(name)
        return DynamicModule(
            QueueModule,
            key=f"flow producer {name}",
            name=f"QueueModule(flow producer {name})",
            imports=[QueueCoreModule],
            providers=[provide(token, use_factory=open_producer, inject=[ENVIRONMENT, SERVER, CLOCK])],
            exports=[token],
            options=name,
            place=caller_place(1),
        )

    @staticmethod
    @explained()
    def register_queue_async(name: str, *, imports: Sequence[object] = (), **ways: Unpack[OptionWays[QueueOptions]]) -> DynamicModule:
        """Register one queue whose options are made when the application starts; arguments as in `for_root_async`.

        Raises (at start):
            InvalidOptionError: what was made isn't options of this queue.
        """
        QueueOptions(name)  # checks it
        return _queue_module(name, option_providers(QueueOptionsToken(name), **ways), imports, ways, caller_place(1))


def _root_module(providers: Sequence[Provider], imports: Sequence[object], options: object) -> DynamicModule:
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


def _registered(options: QueueOptions, place: Place) -> DynamicModule:
    token = QueueOptionsToken(options.name)
    return _queue_module(options.name, [provide(token, use_value=options)], (), options, place)


def _queue_module(name: str, of_options: Sequence[Provider], imports: Sequence[object], options: object, place: Place) -> DynamicModule:
    """The module of one queue. `options` tell two registrations of it apart."""

    async def open_queue(made: QueueOptions, environment: QueueEnvironment, server: Server, clock: Clock) -> AsyncIterator[Queue[Any, Any]]:
        # A generator, so that whoever brings the container down closes it, also after a failed start.
        async with _make_queue(_checked(made, name), environment, server, clock) as queue:
            yield queue

    token, made_under = QueueToken(name), of_options[-1].token
    return DynamicModule(
        QueueModule,
        key=f"queue {name}",
        name=f"QueueModule({name})",
        imports=[QueueCoreModule, *imports],
        providers=[*of_options, provide(token, use_factory=open_queue, inject=[made_under, ENVIRONMENT, SERVER, CLOCK])],
        exports=[token],
        options=options,
        place=place,
    )


def _checked(made: QueueOptions, name: str) -> QueueOptions:
    if not isinstance(made, QueueOptions):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's function made them
        raise InvalidOptionError("use_factory", made, f"the options of queue {name!r} must be QueueOptions")
    if made.name != name:
        raise InvalidOptionError("name", made.name, f"register_queue_async({name!r}) got the options of another queue")
    return made


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
