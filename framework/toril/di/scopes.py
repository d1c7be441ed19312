"""How long everything lives: what depends on the job scope can't outlive the job."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from toril.di.bindings import Binding, EdgeKind
from toril.di.errors import CaptiveDependency
from toril.di.lifecycle import hooks_of
from toril.di.providers import ClassProvider, Scope
from toril.di.tokens import lazily


def decide_scopes(bindings: Sequence[Binding], warnings: list[str]) -> Iterator[CaptiveDependency]:
    """Walk backwards from everything job-scoped. A singleton that is reached becomes job-scoped, unless that breaks a promise."""
    dependants: dict[Binding, list[Binding]] = {}
    for binding in bindings:
        for edge in binding.edges:
            if edge.target is not None and not edge.is_lazy:
                dependants.setdefault(edge.target, []).append(binding)
    sources = [each for each in bindings if each.scope is Scope.JOB or _asks_for_the_job(each)]
    towards: dict[Binding, Binding | None] = dict.fromkeys(sources)  # the next step on the shortest way to the job scope
    waiting = deque(sources)
    while waiting:
        binding = waiting.popleft()
        binding.needs_job = True
        if binding.scope is Scope.SINGLETON:
            reason = _why_it_must_stay(binding)
            if reason is not None:
                node = binding.node
                chain = _chain(binding, towards)
                hints = tuple(_ways_out(binding, towards[binding]))
                yield CaptiveDependency(binding.name, node.name, chain, reason, hints, str(binding.place), node.path)
                continue  # what depends on it depends on a singleton, as promised
            binding.scope = Scope.JOB
        for dependant in dependants.get(binding, ()):
            if dependant not in towards:
                towards[dependant] = binding
                waiting.append(dependant)
    warnings.extend(_silent_hooks(bindings))


def job_chain(binding: Binding) -> tuple[Binding, ...]:
    """The shortest way from `binding` to something that can't be made without a job, both included; empty if there is none."""
    towards: dict[Binding, Binding | None] = {binding: None}
    waiting = deque([binding])
    while waiting:
        current = waiting.popleft()
        if any(edge.kind is EdgeKind.JOB and not edge.is_lazy and edge.dependency.is_required for edge in current.edges):
            way = [current]
            while (before := towards[way[-1]]) is not None:
                way.append(before)
            return tuple(reversed(way))
        for edge in current.edges:
            if edge.target is not None and not edge.is_lazy and edge.target not in towards:
                towards[edge.target] = current
                waiting.append(edge.target)
    return ()


def _asks_for_the_job(binding: Binding) -> bool:
    return any(edge.kind is EdgeKind.JOB and not edge.is_lazy for edge in binding.edges)


def _why_it_must_stay(binding: Binding) -> str | None:
    if binding.declared_scope is Scope.SINGLETON:
        return "it is declared singleton"
    if binding.is_module_class:
        return "it is a module's class, which is created once"
    if binding.cls is not None and binding.has_hooks:
        hooks = ", ".join(sorted(hooks_of(binding.cls)))
        return f"it has lifecycle hooks ({hooks}), which run once for the application"
    return None


def _ways_out(binding: Binding, following: Binding | None) -> Iterator[str]:
    """What its author can write instead, the least change first."""
    asking = (edge for edge in binding.edges if not edge.is_lazy)
    edge = next(edge for edge in asking if (edge.target is following if following is not None else edge.kind is EdgeKind.JOB))
    name = edge.dependency.name
    held = f"self.{name}" if isinstance(binding.provider, ClassProvider) else name
    yield (
        f"in {binding.name}, ask for `{name}: {lazily(edge.dependency.token)}`, and call `{held}.get()` while a job runs "
        f"(`await {held}.resolve()` where making it needs an await)."
    )
    if not binding.is_module_class:
        if isinstance(binding.provider, ClassProvider) and binding.provider.scope is None:
            way = "write `@injectable(scope=Scope.JOB)` above the class"
        else:
            way = "write `scope=Scope.JOB` in its `provide(...)`"
        loss = "; its hooks then never run" if binding.has_hooks else ""
        yield f"or make {binding.name} job-scoped, so that each job gets its own: {way}{loss}."
    yield "or hand the job, or what you need of it, to the method as an argument."


def _chain(binding: Binding, towards: dict[Binding, Binding | None]) -> list[str]:
    names: list[str] = []
    current: Binding | None = binding
    while current is not None:
        names.append(current.name)
        last, current = current, towards[current]
        if current is None and _asks_for_the_job(last):
            names.append("JobRef")
    return names


def _silent_hooks(bindings: Sequence[Binding]) -> Iterator[str]:
    for binding in bindings:
        if binding.scope is not Scope.SINGLETON and binding.has_hooks and binding.cls is not None:
            hooks = ", ".join(sorted(hooks_of(binding.cls)))
            yield f"{binding.name} in {binding.node.name} is {binding.scope.value}-scoped, so its hooks never run: {hooks}"
