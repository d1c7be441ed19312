"""One compiled function for each entry into a job's scope, so that wiring a job costs what writing it by hand would.

For a processor that depends on `Repo` and `Log`, both job-scoped, and on the singleton `Config`, the function is

    def build(job):
        log_1 = new_log_2(job)
        repo_3 = new_repo_4(log_1, config_5)
        return new_processor_6(log_1, repo_3, config_5)

Everything that is fixed (classes, singletons, defaults) is a closure variable, never source text. Each job-scoped binding is one local
variable, which is how sharing within the job comes for free. A *tracked* plan also keeps them in the scope's dictionary and looks there
first; it is needed only where somebody may ask for the same objects later (`Lazy`, `ModuleRef`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import keyword
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import CoroutineType
from typing import Any, NoReturn, Protocol

from toril.di.bindings import Binding, Edge, EdgeKind
from toril.di.errors import AwaitableValue, OutOfScope
from toril.di.providers import ClassProvider, FactoryKind, FactoryProvider, Scope, awaitable_kind
from toril.di.tokens import JOB_REF, token_name


class PlanKind(StrEnum):
    """How a plan's `build` is called."""

    CONSTANT = "constant"
    """`build(job)` returns a singleton."""
    SYNC = "sync"
    """`build(job)`."""
    ASYNC = "async"
    """`await build(job)`."""
    TEARDOWN = "teardown"
    """`await build(job, stack)`; what is entered into the `AsyncExitStack` is closed when the job ends."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """How to make one entry for a job. `JobScope.build(plan)` calls it rightly; a worker may pick a faster loop by `kind`.

    A tracked plan that isn't constant is called with the `JobScope` alone, whatever its kind: `build(scope)`.
    """

    binding: Binding
    kind: PlanKind
    is_tracked: bool
    build: Callable[..., Any] = field(repr=False)
    source: str = field(repr=False)
    """The generated text, for reading."""
    awaits: bool = field(init=False)
    """Whether what `build` returns must be awaited."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "awaits", self.kind in (PlanKind.ASYNC, PlanKind.TEARDOWN))


class Supply(Protocol):
    """What a plan takes from the application context while it is compiled."""

    def instance_of(self, binding: Binding) -> object:
        """A singleton."""
        ...

    def fixed_argument(self, edge: Edge, consumer: Binding, inquirer: object) -> object:
        """What is passed for an edge that leads to nothing that is made for the job."""
        ...


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""Marks what a scope has not made yet; None is a value."""

_numbers = itertools.count(1)
_AWAITABLE_TYPES = frozenset({CoroutineType, asyncio.Future, asyncio.Task})


def compile_plan(binding: Binding, supply: Supply, *, tracked: bool, inquirer: object = None) -> JobPlan:
    """Compile the plan that makes `binding`; the singletons that it needs must exist."""
    if binding.scope is Scope.SINGLETON:
        instance = supply.instance_of(binding)

        def build(_job: object) -> object:
            return instance

        return JobPlan(binding, PlanKind.CONSTANT, False, build, "")
    return _Writer(binding, supply, tracked, inquirer).write()


def allocate(cls: type) -> object:
    """An object without its `__init__` called, for a `forward_ref`; the graph makes sure that nobody has overridden `__new__`."""
    new: Any = object.__new__
    made: object = new(cls)
    return made


def forget_plan(plan: JobPlan) -> None:
    """Drop the plan's text from the cache that tracebacks read."""
    code = getattr(plan.build, "__code__", None)
    if code is not None and plan.source:
        linecache.cache.pop(code.co_filename, None)


def identifier(name: str) -> str:
    """A readable Python name in snake case: `EmailService` -> `email_service`, `Repo[User]` -> `repo_user`.

    >>> identifier("HTTPClient"), identifier("legacy.redis"), identifier("2nd"), identifier("class")
    ('http_client', 'legacy_redis', '_2nd', 'class_')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    slug = re.sub(r"\W+", "_", spaced, flags=re.ASCII).strip("_").lower() or "it"
    if slug[0].isdigit():
        slug = "_" + slug
    return slug + "_" if keyword.iskeyword(slug) else slug


@dataclass(slots=True)
class _Frame:
    """An object whose arguments are being written; transient ones nest."""

    binding: Binding
    inquirer: object
    arguments: list[str] = field(default_factory=list[str])
    position: int = 0


class _Writer:
    """Writes the text of one plan, and collects the constants that it refers to."""

    def __init__(self, entry: Binding, supply: Supply, tracked: bool, inquirer: object) -> None:
        self._entry, self._supply, self._tracked, self._inquirer = entry, supply, tracked, inquirer
        self._lines: list[str] = []
        self._indent = 2
        self._constants: dict[str, Any] = {}
        self._known: dict[int, str] = {}  # id of a constant (which _constants keeps alive) -> its name
        self._locals: dict[Binding, str] = {}
        self._counter = itertools.count(1)
        self._is_async = False
        self._has_teardown = False
        self._requires_job = False

    def write(self) -> JobPlan:
        shared, deferred = self._reachable()
        for binding in shared:
            self._locals[binding] = self._fresh(binding)
            if binding in deferred:
                self._allocate(binding)
        for binding in shared:
            self._write_shared(binding, is_allocated=binding in deferred)
        if self._entry.scope is Scope.JOB:
            result = self._locals[self._entry]
        else:
            result = self._write_object(self._entry, self._inquirer, None)
        return self._compile(result)

    # ── what is needed ────────────────────────────────────────────────────────────────────────────────────────

    def _reachable(self) -> tuple[list[Binding], set[Binding]]:
        """The job-scoped bindings beneath the entry in the order of creation, and those that are handed over unfinished."""
        seen, deferred = {self._entry}, set[Binding]()
        stack = [self._entry]
        while stack:
            for edge in stack.pop().edges:
                target = edge.target
                if target is None or edge.is_lazy or target.scope is Scope.SINGLETON:
                    continue
                if edge.is_deferred:
                    deferred.add(target)
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        shared = sorted((each for each in seen if each.scope is Scope.JOB), key=lambda each: each.position)
        return shared, deferred

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    def _fresh(self, binding: Binding) -> str:
        return f"{identifier(binding.name)}_{next(self._counter)}"

    def _constant(self, value: object, name: str) -> str:
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = f"{identifier(name)}_{next(self._counter)}"
            self._constants[known] = value
        return known

    def _allocate(self, binding: Binding) -> None:
        """Make the object of a forward_ref's target, without calling its `__init__`."""
        local = self._locals[binding]
        cls = self._constant(binding.cls, binding.name)
        if not self._tracked:
            self._line(f"{local} = allocate({cls})")
            return
        self._line(f"{local} = made.get({binding.position}, MISSING)")
        self._line(f"is_new_{local} = {local} is MISSING")
        self._line(f"if is_new_{local}:")
        self._line(f"    {local} = made[{binding.position}] = allocate({cls})")

    def _write_shared(self, binding: Binding, *, is_allocated: bool) -> None:
        local = self._locals[binding]
        if self._tracked:
            if is_allocated:
                self._line(f"if is_new_{local}:")
            else:
                self._line(f"{local} = made.get({binding.position}, MISSING)")
                self._line(f"if {local} is MISSING:")
            self._indent += 1
        self._write_object(binding, None, local, is_allocated=is_allocated)
        if self._tracked:
            if not is_allocated and not binding.factory_kind.is_async:
                # setdefault: while an argument was awaited, another task of this job may have made one
                self._line(f"{local} = made.setdefault({binding.position}, {local})")
            self._indent -= 1

    def _write_object(self, binding: Binding, inquirer: object, local: str | None, *, is_allocated: bool = False) -> str:
        """Write an object and the transient ones that only it uses; returns the name of its local variable."""
        frames = [_Frame(binding, inquirer)]
        while True:
            frame = frames[-1]
            edges = frame.binding.edges
            while frame.position < len(edges):
                edge = edges[frame.position]
                if _is_transient_site(edge) and edge.target is not None:
                    frames.append(_Frame(edge.target, frame.binding.inquirer_for(frame.inquirer)))
                    break
                self._add_argument(frame, self._argument(edge, frame))
            else:
                frames.pop()
                if not frames:
                    return self._write_call(frame, local or self._fresh(binding), is_allocated=is_allocated)
                self._add_argument(frames[-1], self._write_call(frame, self._fresh(frame.binding)))

    def _argument(self, edge: Edge, frame: _Frame) -> str:
        if edge.kind is EdgeKind.JOB and not edge.is_lazy:
            self._requires_job |= edge.dependency.is_required
            return "job"
        if edge.target is not None and not edge.is_lazy and edge.target.scope is Scope.JOB:
            return self._locals[edge.target]
        return self._constant(self._supply.fixed_argument(edge, frame.binding, frame.inquirer), edge.dependency.name)

    def _add_argument(self, frame: _Frame, text: str) -> None:
        dependency = frame.binding.edges[frame.position].dependency
        frame.arguments.append(f"{dependency.name}={text}" if dependency.is_keyword else text)
        frame.position += 1

    def _write_call(self, frame: _Frame, local: str, *, is_allocated: bool = False) -> str:
        binding, arguments = frame.binding, ", ".join(frame.arguments)
        provider = binding.provider
        if isinstance(provider, ClassProvider):
            new = self._constant(provider.cls, f"new {binding.name}")
            self._line(f"{new}.__init__({', '.join([local, *frame.arguments])})" if is_allocated else f"{local} = {new}({arguments})")
            return local
        if not isinstance(provider, FactoryProvider):
            raise TypeError(provider)  # values are singletons, aliases are followed by the graph
        factory: Any = provider.factory
        kind = provider.kind
        is_shared = self._tracked and binding.scope is Scope.JOB
        self._is_async |= kind.is_async
        self._has_teardown |= kind.has_teardown
        if kind is FactoryKind.SYNC:
            make = self._constant(factory, f"make {binding.name}")
            self._line(f"{local} = {make}({arguments})")
            self._line(f"if type({local}) in AWAITABLE_TYPES: refuse({local}, {self._constant(binding, f'binding {binding.name}')})")
        elif kind is FactoryKind.GENERATOR:
            open_it = self._constant(contextlib.contextmanager(factory), f"open {binding.name}")
            self._line(f"{local} = stack.enter_context({open_it}({arguments}))")
        elif kind is FactoryKind.COROUTINE:
            make = self._constant(factory, f"make {binding.name}")
            call = f"{make}({arguments})"
            self._line(f"{local} = await {self._once(binding, call) if is_shared else call}")
        else:
            open_it = self._constant(contextlib.asynccontextmanager(factory), f"open {binding.name}")
            call = f"stack.enter_async_context({open_it}({arguments}))"
            self._line(f"{local} = await {self._once(binding, call) if is_shared else call}")
        return local

    @staticmethod
    def _once(binding: Binding, call: str) -> str:
        # Two tasks of one job may ask for it at once, and while one awaits its factory the other must not start a second.
        return f"scope.once({binding.position}, lambda: {call})"

    # ── compiling ─────────────────────────────────────────────────────────────────────────────────────────────

    def _compile(self, result: str) -> JobPlan:
        kind = PlanKind.TEARDOWN if self._has_teardown else PlanKind.ASYNC if self._is_async else PlanKind.SYNC
        awaits = "" if kind is PlanKind.SYNC else "async "
        head: list[str] = []
        if self._tracked:
            parameters, head = "scope", ["        job, made = scope.job, scope.made"]
            head += ["        stack = scope.stack"] if self._has_teardown else []
        else:
            parameters = "job, stack" if self._has_teardown else "job"
        if self._requires_job:  # a listener may run in a scope without one
            head.append("        if job is None: refuse_without_job()")
        constants = {
            "MISSING": MISSING,
            "allocate": allocate,
            "AWAITABLE_TYPES": _AWAITABLE_TYPES,
            "refuse": refuse_awaitable,
            "refuse_without_job": _refuse_without_job,
            **self._constants,
        }
        lines = [f"def make({', '.join(constants)}):", f"    {awaits}def build({parameters}):", *head, *self._lines]
        source = "\n".join([*lines, f"        return {result}", "    return build", ""])
        filename = f"<toril plan {next(_numbers)}: {self._entry.name}>"
        namespace: dict[str, Any] = {}
        exec(compile(source, filename, "exec"), namespace)  # our own text; users' names only through identifier()
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        return JobPlan(self._entry, kind, self._tracked, namespace["make"](**constants), source)


def _is_transient_site(edge: Edge) -> bool:
    return edge.target is not None and not edge.is_lazy and edge.target.scope is Scope.TRANSIENT


def _refuse_without_job() -> NoReturn:
    raise OutOfScope(token_name(JOB_REF))


def refuse_awaitable(value: object, binding: Binding) -> NoReturn:
    """Raise AwaitableValue; a coroutine is closed, so that Python doesn't warn of it, too."""
    kind = awaitable_kind(value) or "future"
    if isinstance(value, CoroutineType):
        value.close()
    raise AwaitableValue(token_name(binding.token), binding.node.name, kind)
