"""Users' own dependency-injector containers as modules.

A container is opened by one hidden provider: it makes the container, fills its dependencies with ours, starts its resources one after
another, dependencies first, and stops them in reverse when all that uses them is gone. (`init_resources` and `shutdown_resources` of the
package don't keep that order where resources depend on each other indirectly, and one that fails to stop keeps the others open.)

Whether something of it is awaited is decided by whether we get a coroutine or a future, never by whether it could be awaited: clients can.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from dependency_injector import providers, resources
from dependency_injector.containers import Container, DeclarativeContainer

from toril.calls import explained
from toril.di.errors import InvalidProvider
from toril.di.module import DynamicModule, module
from toril.di.places import Place, caller_place
from toril.di.providers import AliasProvider, FactoryProvider, Provider, Scope
from toril.di.tokens import Token, token_name
from toril.spelling import near

AnyProvider: TypeAlias = providers.Provider[Any]
Theirs: TypeAlias = "type[DeclarativeContainer] | Container"

_KEPT: Final = (providers.Singleton, providers.Object, providers.Resource, providers.Configuration)
_FOR_EACH_CONTEXT: Final = (providers.ThreadLocalSingleton, providers.ContextLocalSingleton)
_NOT_PROVIDED: Final = (providers.Dependency, providers.DependenciesContainer, providers.Container, providers.Self)


@module()
class ContainerModule:
    """Makes a dependency-injector container a module: `imports=[ContainerModule.from_container(BillingContainer, …)]`."""

    @staticmethod
    @explained()
    def from_container(
        container: Theirs, *, bind: Mapping[str, object] | None = None, prefix: str = "", imports: Sequence[object] = ()
    ) -> DynamicModule:
        """A module that exports what a container provides.

        Each of its providers stands under its name with the prefix, `"billing.service"`, those of a container inside it under
        `"billing.inner.service"`; a class that only one provider makes stands under the class, too. Singletons, resources, objects and
        configurations are made at start and kept; everything else is called for each who asks.

        Args:
            container: the class, of which each application makes a container of its own, or a container.
            bind: for its `providers.Dependency`s by name, `{"redis": REDIS}`: the token whose value each gets. Of a container inside
                it: `{"inner.redis": REDIS}`.
            prefix: of the names.
            imports: modules that provide the tokens of `bind`.

        Raises:
            InvalidProvider: `bind` names what is no dependency, or leaves out one that has no default.
        """
        place = caller_place(1)
        bound = dict(bind or {})
        found = dict(_walk(container.providers))
        _check_bound(container, found, bound, place)
        opened = Token[Container]("the opened container")
        opening = _opening(container, tuple(bound))
        offered: list[Provider] = [FactoryProvider(token=opened, factory=opening, inject=tuple(bound.values()), place=place)]
        offered += _named(found, prefix, opened, place)
        return DynamicModule(
            ContainerModule,
            key=("container", container, prefix),
            name=f"ContainerModule({_name_of(container)})",
            imports=imports,
            providers=offered,
            exports=[each.token for each in offered if each.token is not opened],
            options=(bound, prefix),
            place=place,
        )


# ── what it offers ────────────────────────────────────────────────────────────────────────────────────────────


def _walk(children: Mapping[str, AnyProvider], path: str = "") -> Iterator[tuple[str, AnyProvider]]:
    for name, provider in children.items():
        yield path + name, provider
        if isinstance(provider, providers.Container):
            inner: Any = provider
            yield from _walk(inner.providers, f"{path}{name}.")


def _named(found: Mapping[str, AnyProvider], prefix: str, opened: object, place: Place) -> list[Provider]:
    names = [name for name, provider in found.items() if not isinstance(provider, _NOT_PROVIDED)]
    by_class: dict[type, list[str]] = {}
    offered: list[Provider] = []
    for name in names:
        provider = found[name]
        is_kept = isinstance(provider, _KEPT) and not isinstance(provider, _FOR_EACH_CONTEXT)
        make = _awaited(name) if is_kept or _is_async(provider) else _called(name)
        scope = Scope.SINGLETON if is_kept else Scope.TRANSIENT
        offered.append(FactoryProvider(token=prefix + name, factory=make, inject=(opened,), scope=scope, place=place))
        cls: object = getattr(provider, "cls", None)
        if isinstance(cls, type):
            by_class.setdefault(cls, []).append(name)
    offered += [AliasProvider(token=cls, target=prefix + of[0], place=place) for cls, of in by_class.items() if len(of) == 1]
    return offered


def _is_async(provider: AnyProvider) -> bool:
    """Whether calling it will give a future: something async is in it or beneath it."""
    beneath: Iterator[Any] = provider.traverse()
    for each in (provider, *beneath):
        made_by: Any = getattr(each, "provides", None)
        if isinstance(each, providers.Coroutine) or inspect.iscoroutinefunction(made_by) or inspect.isasyncgenfunction(made_by):
            return True
        if isinstance(made_by, type) and issubclass(made_by, resources.AsyncResource):
            return True
    return False


def _called(name: str) -> Callable[[Container], object]:
    def call(container: Container) -> object:
        return _find(container, name)()

    return call


def _awaited(name: str) -> Callable[[Container], Any]:
    async def call(container: Container) -> object:
        return await _settled(_find(container, name)())

    return call


def _find(container: Container, name: str) -> Any:  # noqa: ANN401 -- the package's stubs don't know what a container holds
    found: Any = container
    for part in name.split("."):
        found = found.providers[part]
    return found


# ── opening and closing ───────────────────────────────────────────────────────────────────────────────────────


def _opening(theirs: Theirs, names: Sequence[str]) -> Callable[..., AsyncIterator[Container]]:
    async def open_container(*values: object) -> AsyncIterator[Container]:
        container: Any = theirs() if isinstance(theirs, type) else theirs
        dependencies = [_find(container, name) for name in names]
        started: list[Any] = []
        try:
            for dependency, value in zip(dependencies, values, strict=True):
                dependency.override(providers.Object(value))
            container.check_dependencies()
            for resource in _resources_in_order(container):
                if not resource.initialized:
                    started.append(resource)
                    await _settled(resource.init())
            yield container
        finally:
            errors = [error for resource in reversed(started) if (error := await _shut_down(resource)) is not None]
            for dependency in dependencies:
                dependency.reset_last_overriding()
            if errors:
                raise ExceptionGroup(f"{len(errors)} resources of {_name_of(theirs)} failed to stop", errors)

    return open_container


def _resources_in_order(container: Any) -> list[Any]:  # noqa: ANN401 -- see _find
    """All resources, each after those that it needs, however indirectly; without recursion."""
    order: list[Any] = []
    seen: set[int] = set()
    work: list[tuple[Any, bool]] = [(provider, False) for _, provider in reversed(list(_walk(container.providers)))]
    while work:
        provider, is_done = work.pop()
        if is_done:
            order.append(provider)
        elif id(provider) not in seen:
            seen.add(id(provider))
            work.append((provider, True))
            work += [(each, False) for each in provider.related]
    return [provider for provider in order if isinstance(provider, providers.Resource)]


async def _shut_down(resource: Any) -> Exception | None:  # noqa: ANN401 -- see _find
    try:
        await _settled(resource.shutdown())
    except Exception as error:  # noqa: BLE001 -- the others are to stop, too; all errors come out together
        return error
    return None


async def _settled(made: object) -> object:
    # `inspect.iscoroutine` doesn't know those that are compiled, as the package's are.
    return await cast("Any", made) if asyncio.iscoroutine(made) or asyncio.isfuture(made) else made


# ── mistakes ──────────────────────────────────────────────────────────────────────────────────────────────────


def _check_bound(container: Theirs, found: Mapping[str, AnyProvider], bound: Mapping[str, object], place: Place) -> None:
    dependencies = {name: each for name, each in found.items() if isinstance(each, providers.Dependency)}
    for name in bound:
        if name not in dependencies:
            close = near(name, dependencies)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"It has: {', '.join(dependencies) or 'none'}."
            raise InvalidProvider(_name_of(container), "", f"bind names {name!r}, which is no providers.Dependency of it", hint, str(place))
    for name, dependency in dependencies.items():
        # One of a container inside is given by the container around it, as a rule; the package checks that when it is opened.
        if "." not in name and name not in bound and not _is_filled(dependency):
            hint = f'Write bind={{"{name}": TOKEN}}.'
            raise InvalidProvider(_name_of(container), "", f"nothing is bound to its dependency {name!r}", hint, str(place))


def _is_filled(dependency: Any) -> bool:  # noqa: ANN401 -- see _find
    return bool(dependency.overridden) or dependency.default is not None


def _name_of(container: Theirs) -> str:
    return token_name(container) if isinstance(container, type) else type(container).__name__
