"""The instances of an application: making singletons, finding what exists, making what lives shorter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toril.di.bindings import Binding, Edge, EdgeKind
from toril.di.containers import Containers
from toril.di.discovery import DiscoveryService
from toril.di.errors import AmbiguousToken, NotFound, NotReady, OutOfScope, WrongScope
from toril.di.graph import Graph
from toril.di.job_scope import JobScope, current_job, current_scope, scope_of
from toril.di.lifecycle import Bound, Closers, ContextState, open_generator
from toril.di.module_ref import ModuleRef
from toril.di.plan import MISSING, JobPlan, PlanKind, compile_plan, forget_plan, refuse_awaitable
from toril.di.providers import FactoryKind, FactoryProvider, Scope, awaitable_kind
from toril.di.scanner import Node
from toril.di.tokens import Lazy, as_many, plain_token, token_name


class Instances:
    """Belongs to one `ApplicationContext`, which keeps `state` true and calls `create` for each singleton, in order."""

    def __init__(self, graph: Graph, *, tracks_jobs: bool) -> None:
        self.graph = graph
        self.state = ContextState.NEW
        self.closers = Closers()
        self.containers: Containers | None = None
        self.discovery = DiscoveryService(self)
        self._tracks_jobs = tracks_jobs
        self._singletons: dict[Binding, Any] = {}
        self._created: dict[tuple[Node, type], Binding] = {}
        self._plans: dict[tuple[Binding, bool], JobPlan] = {}

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, token: object) -> object:
        """`ApplicationContext.get`."""
        token = plain_token(token)
        special = self._special(token, self.graph.root)
        return self._singleton(self._find(token)) if special is MISSING else special

    def get_all(self, token: object) -> list[Any]:
        """`ApplicationContext.get_all`."""
        bindings = self.graph.find_all(plain_token(token))
        return list({id(instance): instance for instance in map(self._singleton, bindings)}.values())

    async def resolve(self, token: object, job: object = None) -> object:
        """`ApplicationContext.resolve`."""
        token = plain_token(token)
        if job is not None and self.graph.is_job(token):
            return job
        special = self._special(token, self.graph.root)
        if special is not MISSING:
            return special
        binding, scope = self._find(token), current_scope(self)
        if job is None or not binding.needs_job or (scope is not None and scope.job is job):
            return await self._resolve(binding, scope)
        if self._plan(binding, tracked=True).kind is PlanKind.TEARDOWN:
            how = "Use `async with ctx.job_scope(job) as scope: await scope.resolve(...)`."
            raise WrongScope(token_name(binding.token), "has something to close when the job ends", how)
        async with JobScope(self, job) as own:
            return await self._resolve(binding, own)

    async def resolve_within(self, token: object, scope: JobScope) -> object:
        """`JobScope.resolve`."""
        token = plain_token(token)
        special = scope.job if self.graph.is_job(token) else self._special(token, self.graph.root)
        return await self._resolve(self._find(token), scope) if special is MISSING else special

    def get_in(self, token: object, node: Node) -> object:
        """`get` as seen from one module."""
        token = plain_token(token)
        special = self._special(token, node)
        return self._singleton(self._find_in(token, node)) if special is MISSING else special

    def get_all_in(self, token: object, node: Node) -> list[Any]:
        """`get_all` as seen from one module."""
        token = plain_token(token)
        if (many := as_many(token)) is not None:
            return [self._singleton(binding) for binding in self.graph.visible(node, many)]
        found = self.graph.find(node, token)
        return [] if found is None else [self._singleton(found)]

    async def resolve_in(self, token: object, node: Node) -> object:
        """`resolve` as seen from one module."""
        token = plain_token(token)
        special = self._special(token, node)
        return await self._resolve(self._find_in(token, node), current_scope(self)) if special is MISSING else special

    async def create_in(self, cls: type, node: Node) -> object:
        """`ModuleRef.create`."""
        binding = self._created.get((node, cls))
        if binding is None:
            binding = self._created[node, cls] = self.graph.link_class(node, cls)
        return await self._resolve(binding, current_scope(self))

    def get_scoped(self, binding: Binding) -> object:
        """An instance of something that is no singleton, without awaiting anything."""
        if not binding.needs_job:
            plan = self._plan(binding, tracked=False)
            if plan.kind is PlanKind.SYNC:
                return plan.build(None)
        else:
            scope = scope_of(self, binding)
            made = scope.made.get(binding.position, MISSING)
            if made is not MISSING:
                return made
            plan = self._plan(binding, tracked=True)
            if plan.kind is PlanKind.SYNC:
                return plan.build(scope)
        raise WrongScope(token_name(binding.token), "is made by something async or closed after use", "Use `await ....resolve(...)`.")

    def fixed_argument(self, edge: Edge, consumer: Binding, inquirer: object) -> object:
        """What is passed for an edge, unless it leads to something that is made for the occasion."""
        dependency, target = edge.dependency, edge.target
        if edge.kind is EdgeKind.ABSENT:
            if dependency.has_default:
                return dependency.default
            return self._lazy(edge, lambda: None) if dependency.is_lazy_none else None
        if edge.kind is EdgeKind.MODULE_REF:
            module_ref = ModuleRef(self, consumer.node)
            return self._lazy(edge, lambda: module_ref) if edge.is_lazy else module_ref
        if edge.kind is EdgeKind.DISCOVERY:
            return self._lazy(edge, lambda: self.discovery) if edge.is_lazy else self.discovery
        if edge.kind is EdgeKind.INQUIRER:
            return self._lazy(edge, lambda: inquirer) if edge.is_lazy else inquirer
        if target is None:
            return self._lazy(edge, current_job)
        if edge.is_lazy:
            return self.lazy_of(target)
        if edge.is_deferred and self.containers is not None and target in self.containers.raw:
            return self.containers.raw[target]
        return self.instance_of(target)

    def all_bindings(self) -> list[Binding]:
        """What modules list, the modules' own classes included."""
        return [binding for binding in self.graph.bindings if not binding.is_hidden]

    def lazy_of(self, binding: Binding) -> Lazy[Any]:
        """A binding's instance, looked up when it is used."""
        if binding.scope is Scope.SINGLETON:
            return Lazy(binding.token, lambda: self.instance_of(binding), lambda: self._resolve(binding, None))
        return Lazy(binding.token, lambda: self.get_scoped(binding), lambda: self._resolve(binding, current_scope(self)))

    def instance_of(self, binding: Binding) -> Any:  # noqa: ANN401  # its class is known to whoever asks
        """A singleton's instance; NotReady if it isn't there (yet, or any more)."""
        instance = self._singletons.get(binding, MISSING)
        if instance is MISSING or self.state is ContextState.CLOSED:
            raise NotReady(token_name(binding.token), self.state, ContextState.CREATED)
        return instance

    def plan_for(self, binding: Binding) -> JobPlan:
        """The plan of an entry, tracked only if somebody may ask for what it made."""
        return self._plan(binding, tracked=self._tracks_jobs)

    # ── creating ──────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, binding: Binding, containers: Containers, bound: Bound) -> None:
        try:
            for edge, slot in containers.sites.get(binding, ()):
                containers.fill(slot, await bound.run(self._make_transient(edge, binding), describe(binding)))
            provider = binding.provider
            if isinstance(provider, FactoryProvider) and provider.kind is not FactoryKind.SYNC:
                instance = await bound.run(self._make_by_factory(binding, provider, containers), describe(binding))
                containers.put(binding, instance)
            else:
                instance = containers.make(binding)
                if awaitable_kind(instance) is not None:
                    refuse_awaitable(instance, binding)
        except BaseException as exc:
            exc.add_note(f"while creating {describe(binding)}")
            raise
        self._singletons[binding] = instance

    async def _make_transient(self, edge: Edge, consumer: Binding) -> object:
        assert edge.target is not None  # only such edges have a site
        plan = compile_plan(edge.target, self, tracked=False, inquirer=consumer.inquirer_for(None))
        forget_plan(plan)
        made = plan.build(None, self.closers) if plan.kind is PlanKind.TEARDOWN else plan.build(None)
        return made if plan.kind is PlanKind.SYNC else await made

    async def _make_by_factory(self, binding: Binding, provider: FactoryProvider, containers: Containers) -> object:
        positional, named = containers.arguments(binding)
        if provider.kind is FactoryKind.COROUTINE:
            coroutine: Any = provider.factory(*positional, **named)
            return await coroutine
        return await open_generator(self.closers, provider, positional, named, describe(binding))

    def in_order(self) -> list[tuple[Binding, Any]]:
        """Instances in the order of creation; one that stands under several tokens comes once."""
        unique: dict[int, tuple[Binding, Any]] = {}
        for binding, instance in self._singletons.items():
            unique.setdefault(id(instance), (binding, instance))
        return list(unique.values())

    def forget_plans(self) -> None:
        """Let the plans go, when no job can come any more."""
        for plan in self._plans.values():
            forget_plan(plan)
        self._plans.clear()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _lazy(edge: Edge, get: Callable[[], Any]) -> Lazy[Any]:
        async def resolve() -> object:
            return get()

        return Lazy(edge.dependency.token, get, resolve)

    def _special(self, token: object, node: Node) -> object:
        """What the container itself answers with; MISSING for everything that modules provide."""
        if token is ModuleRef:
            return ModuleRef(self, node)
        if token is DiscoveryService:
            return self.discovery
        return current_job() if self.graph.is_job(token) else MISSING

    def _find(self, token: object) -> Binding:
        _refuse_many(token)
        found = self.graph.find_all(token)
        if not found:
            raise NotFound(token_name(token), "", self.graph.near_tokens(token))
        first, *others = found
        if others:
            # A test's override puts one object into several modules; that leaves no question which one is meant.
            instances = {id(self.instance_of(each)) if each.scope is Scope.SINGLETON else id(each) for each in found}
            if len(instances) > 1:
                raise AmbiguousToken(token_name(token), [binding.node.name for binding in found])
        return first

    def _find_in(self, token: object, node: Node) -> Binding:
        _refuse_many(token)
        found = self.graph.find(node, token)
        if found is None:
            raise NotFound(token_name(token), node.name, self.graph.unresolved_hints(token, node))
        return found

    def _singleton(self, binding: Binding) -> object:
        if binding.scope is not Scope.SINGLETON:
            kind = "job-scoped" if binding.needs_job else "transient"
            raise WrongScope(token_name(binding.token), f"is {kind}, so there is no single instance", "Use `await ....resolve(...)`.")
        return self.instance_of(binding)

    def _plan(self, binding: Binding, *, tracked: bool) -> JobPlan:
        key = (binding, tracked)
        plan = self._plans.get(key)
        if plan is None:
            if self.state is ContextState.CLOSED:
                raise NotReady(token_name(binding.token), self.state, ContextState.RUNNING)
            plan = self._plans[key] = compile_plan(binding, self, tracked=tracked)
        return plan

    async def _resolve(self, binding: Binding, scope: JobScope | None) -> object:
        if binding.scope is Scope.SINGLETON:
            return self.instance_of(binding)
        if binding.needs_job:
            if scope is None:
                raise OutOfScope(token_name(binding.token))
            return await scope.build(self._plan(binding, tracked=True))
        plan = self._plan(binding, tracked=False)
        stack = (self.closers if scope is None else scope.stack,) if plan.kind is PlanKind.TEARDOWN else ()
        made = plan.build(None, *stack)
        return made if plan.kind is PlanKind.SYNC else await made


def _refuse_many(token: object) -> None:
    if as_many(token) is not None:
        raise WrongScope(token_name(token), "stands for several things", "Use `get_all(...)`.")


def describe(binding: Binding) -> str:
    """A binding as notes on errors name it: `Mailer in AppModule -> EmailModule`."""
    return f"{binding.name} in {binding.node.path}"
