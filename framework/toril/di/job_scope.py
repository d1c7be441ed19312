"""What lives as long as one job: the current job, the instances made for it, and what must be closed when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from contextvars import Token as ContextToken
from types import TracebackType
from typing import Any, Protocol, TypeVar, overload

from toril.di.bindings import Binding
from toril.di.errors import OutOfScope, WrongScope
from toril.di.plan import MISSING, JobPlan, PlanKind
from toril.di.tokens import JOB_REF, Token, token_name

T = TypeVar("T")


class ScopeOwner(Protocol):
    """What a scope asks of the application context."""

    async def resolve_within(self, token: object, scope: JobScope) -> object: ...


class JobScope:
    """The scope of one job (of one attempt): `async with ctx.job_scope(job) as scope: handler = await scope.build(plan)`.

    Inside the block, and in tasks started there, it is the current scope: `current_job()`, `Lazy`, `ModuleRef` answer from it. The
    block sets and resets that explicitly, so nothing leaks from one job to the next, nor into the worker's own tasks.

    Leaving the block closes what generator factories opened, in reverse order. An exception that leaves it is thrown into them, so
    that a transaction can roll back; they can't swallow it. What they raise themselves comes out, which fails the job.
    """

    __slots__ = ("_current", "_is_open", "_owner", "_stack", "_under_way", "_was_entered", "job", "made")

    def __init__(self, owner: ScopeOwner, job: object) -> None:
        self.job: Any = job
        """What `JobRef` means; None in a scope without a job (listeners that hear of none, cron methods)."""
        self.made: dict[int, Any] = {}
        self._owner = owner
        self._stack: AsyncExitStack | None = None
        self._under_way: dict[int, asyncio.Future[None]] | None = None
        self._current: ContextToken[JobScope | None] | None = None
        self._is_open = False
        self._was_entered = False

    @property
    def owner(self) -> ScopeOwner:
        """The application context."""
        return self._owner

    @property
    def is_open(self) -> bool:
        """Whether the job still runs. A task that outlives its job sees a closed scope."""
        return self._is_open

    @property
    def must_close(self) -> bool:
        """Whether something was opened that must be closed."""
        return self._stack is not None

    @property
    def stack(self) -> AsyncExitStack:
        """What is closed when the job ends."""
        if self._stack is None:
            self._stack = AsyncExitStack()
        return self._stack

    async def build(self, plan: JobPlan) -> Any:  # noqa: ANN401  # the entry's class is known to whoever made the plan
        """Make a plan's entry for this job. Raises OutOfScope once the job has ended."""
        made = self.begin(plan)
        return await made if plan.awaits else made

    def begin(self, plan: JobPlan) -> Any:  # noqa: ANN401  # see `build`
        """The same without the awaiting: of a plan that `awaits`, what is to be awaited."""
        if not self._is_open:
            raise OutOfScope(token_name(plan.binding.token))
        if plan.is_tracked:
            return plan.build(self)
        return plan.build(self.job, self.stack) if plan.kind is PlanKind.TEARDOWN else plan.build(self.job)

    @overload
    async def resolve(self, token: Token[T]) -> T: ...
    @overload
    async def resolve(self, token: type[T]) -> T: ...
    @overload
    async def resolve(self, token: object) -> Any: ...  # noqa: ANN401  # as the token, so the result
    async def resolve(self, token: object) -> Any:
        """Of any scope, as seen in this job. Raises as `ApplicationContext.resolve` does."""
        return await self._owner.resolve_within(token, self)

    async def once(self, key: int, make: Callable[[], Awaitable[object]]) -> object:
        """Await `make()` and keep the result; whoever else asks meanwhile waits for it instead of making a second one.

        If it fails, or is cancelled, the next one in line tries again.
        """
        if self._under_way is None:
            self._under_way = {}
        while (other := self._under_way.get(key)) is not None:
            await asyncio.wait((other,))
            if (made := self.made.get(key, MISSING)) is not MISSING:
                return made
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            value = self.made[key] = await make()
        finally:
            del self._under_way[key]
            done.set_result(None)
        return value

    async def __aenter__(self) -> JobScope:
        self.enter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._stack is not None:
                await self._stack.__aexit__(kind, error, trace)  # its answer is not ours: a generator must not swallow a failure
        finally:
            self.leave()

    def enter(self) -> None:
        """Begin it, for who has no use for a coroutine more for each job; it must be left in the same context."""
        if self._was_entered:
            raise WrongScope("a job's scope", "can be entered only once", "Take a new one: `ctx.job_scope(job)`.")
        self._current = _current_scope.set(self)
        self._is_open = self._was_entered = True

    def leave(self) -> None:
        """End it; by itself only where nothing `must_close`."""
        self._is_open = False
        if self._current is not None:
            _current_scope.reset(self._current)
            self._current = None


_current_scope: ContextVar[JobScope | None] = ContextVar("toril_job_scope", default=None)


def current_scope(owner: object = None) -> JobScope | None:
    """The scope of the job that runs here, of this application context if one is given; None outside."""
    scope = _current_scope.get()
    if scope is None or not scope.is_open or (owner is not None and scope.owner is not owner):
        return None
    return scope


def current_job() -> Any:  # noqa: ANN401  # the container doesn't know what a job is
    """The job that runs here.

    Raises:
        OutOfScope: none does, or what runs here has none.
    """
    scope = current_scope()
    if scope is None or scope.job is None:
        raise OutOfScope(token_name(JOB_REF))
    return scope.job


def scope_of(owner: object, binding: Binding) -> JobScope:
    """The current scope, for something job-scoped; raises OutOfScope without one."""
    scope = current_scope(owner)
    if scope is None:
        raise OutOfScope(token_name(binding.token))
    return scope
