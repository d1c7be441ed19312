"""Lifecycle hooks: the methods that an instance may have, and how they are called one after another.

    start   on_module_init ─► on_application_bootstrap                 in the order of creation: dependencies first
    stop    on_module_destroy ─► before_application_shutdown ─► on_application_shutdown ─► generators closed
                                                                       in reverse: dependants first

Hooks may be plain or async. They are looked up on the class, so a mock isn't taken for something that has them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

from toril.clock import Clock
from toril.di.providers import FactoryKind, FactoryProvider
from toril.units import format_ms

T = TypeVar("T")


class ContextState(StrEnum):
    """Where an application context stands between start and end; the picture is in `context.py`."""

    NEW = "new"
    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


class Hook(StrEnum):
    """The hooks, by the names of their methods."""

    MODULE_INIT = "on_module_init"
    APPLICATION_BOOTSTRAP = "on_application_bootstrap"
    MODULE_DESTROY = "on_module_destroy"
    BEFORE_SHUTDOWN = "before_application_shutdown"
    SHUTDOWN = "on_application_shutdown"

    @property
    def gets_signal(self) -> bool:
        """Whether the method may take the name of the signal that stops the application (None without one)."""
        return self in (Hook.BEFORE_SHUTDOWN, Hook.SHUTDOWN)


@runtime_checkable
class OnModuleInit(Protocol):
    """Runs once all instances exist, in the order of creation."""

    def on_module_init(self) -> Awaitable[None] | None: ...


@runtime_checkable
class OnApplicationBootstrap(Protocol):
    """Runs once every `on_module_init` is through, before any job is taken."""

    def on_application_bootstrap(self) -> Awaitable[None] | None: ...


@runtime_checkable
class OnModuleDestroy(Protocol):
    """Runs once no job runs any more; queues and connections still work."""

    def on_module_destroy(self) -> Awaitable[None] | None: ...


@runtime_checkable
class BeforeApplicationShutdown(Protocol):
    """Runs after every `on_module_destroy`, just before connections are closed."""

    def before_application_shutdown(self, signal: str | None) -> Awaitable[None] | None: ...


@runtime_checkable
class OnApplicationShutdown(Protocol):
    """Runs last, when connections are closed."""

    def on_application_shutdown(self, signal: str | None) -> Awaitable[None] | None: ...


def has_hook(instance: object, hook: Hook) -> bool:
    """Whether the instance's class has the hook."""
    cls: type = type(instance)
    return callable(getattr(cls, hook.value, None))


def hooks_of(cls: type) -> frozenset[Hook]:
    """The hooks that a class has."""
    return frozenset(hook for hook in Hook if callable(getattr(cls, hook.value, None)))


async def call_hook(instance: object, hook: Hook, signal: str | None = None) -> None:
    """Call one hook, if the instance's class has it, and await what it returns if that can be awaited."""
    if not has_hook(instance, hook):
        return
    bound: Callable[..., object] = getattr(instance, hook.value)
    result = bound(signal) if hook.gets_signal and _takes_an_argument(bound) else bound()
    if inspect.isawaitable(result):
        await result


class Bound:
    """Limits how long a single step may take; without a limit, or a clock, it never ends one."""

    def __init__(self, clock: Clock, limit_ms: int | None = None) -> None:
        self._clock, self._limit_ms = clock, limit_ms

    async def run(self, step: Awaitable[T], what: str) -> T:
        """Await `step`; past the limit it is cancelled.

        Raises:
            TimeoutError: with `what` and the limit in its text.
        """
        if self._limit_ms is None:
            return await step
        block = self._clock.timeout(self._limit_ms)
        try:
            async with block:
                return await step
        except TimeoutError as exc:
            if block.expired():
                raise TimeoutError(f"{what} took longer than {format_ms(self._limit_ms)} and was cancelled") from exc
            raise


class Closers:
    """Generators that wait for their end. The part of `AsyncExitStack` that plans use, closing one by one."""

    def __init__(self) -> None:
        self._open: list[tuple[str, AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]] = []

    def __len__(self) -> int:
        return len(self._open)

    async def enter_async_context(self, manager: AbstractAsyncContextManager[T], name: str = "a transient provider") -> T:
        """Start an async generator, and remember to close it."""
        value = await manager.__aenter__()
        self._open.append((name, manager))
        return value

    def enter_context(self, manager: AbstractContextManager[T], name: str = "a transient provider") -> T:
        """Start a generator, and remember to close it."""
        value = manager.__enter__()
        self._open.append((name, manager))
        return value

    def pop(self) -> tuple[str, AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]:
        """The one entered last; it is then the caller's to close."""
        return self._open.pop()


async def open_generator(closers: Closers, provider: FactoryProvider, positional: list[Any], named: dict[str, Any], name: str) -> object:
    """Run a generator factory up to its `yield`, and remember the rest of it under `name`."""
    factory: Any = provider.factory
    if provider.kind is FactoryKind.ASYNC_GENERATOR:
        return await closers.enter_async_context(contextlib.asynccontextmanager(factory)(*positional, **named), name)
    return closers.enter_context(contextlib.contextmanager(factory)(*positional, **named), name)


def close_generators(closers: Closers) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Names and closing functions, the generator entered last first; each is handed out once."""
    while closers:
        name, manager = closers.pop()
        yield f"the teardown of {name}", functools.partial(_close, manager)


async def run_all(steps: Iterable[tuple[str, Callable[[], Awaitable[None]]]], bound: Bound) -> list[Exception]:
    """Run every step, each within the bound, whatever happens to the others; what they raise is returned, with a note.

    A cancellation ends the step that it hits, and is raised when all are through.
    """
    errors: list[Exception] = []
    cancelled: asyncio.CancelledError | None = None
    for what, step in steps:
        try:
            await bound.run(step(), what)
        except asyncio.CancelledError as exc:
            if _is_being_cancelled():
                cancelled = exc
            else:  # the step awaited something that somebody else cancelled
                errors.append(RuntimeError(f"{what} let a CancelledError out, although nobody cancelled it"))
        except Exception as exc:  # noqa: BLE001  # the owner of the steps decides; it gets all of them
            exc.add_note(f"while running {what}")
            errors.append(exc)
    if cancelled is not None:
        raise cancelled from (ExceptionGroup("errors of the other steps", errors) if errors else None)
    return errors


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _close(manager: AbstractAsyncContextManager[Any] | AbstractContextManager[Any]) -> None:
    if isinstance(manager, AbstractAsyncContextManager):
        await manager.__aexit__(None, None, None)
    else:
        manager.__exit__(None, None, None)


def _takes_an_argument(method: Callable[..., object]) -> bool:
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
