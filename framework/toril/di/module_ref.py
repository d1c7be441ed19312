"""The application as seen from one module, for code that decides at run time what it needs."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast, overload

from toril.di.scanner import Node
from toril.di.tokens import Token

T = TypeVar("T")


class Resolver(Protocol):
    """What `ModuleRef` asks of the application context."""

    def get_in(self, token: object, node: Node) -> object: ...

    def get_all_in(self, token: object, node: Node) -> list[Any]: ...

    async def resolve_in(self, token: object, node: Node) -> object: ...

    async def create_in(self, cls: type, node: Node) -> object: ...


class ModuleRef:
    """Finds providers as the constructors of one module would: its own, then those of its imports, then global ones.

    Ask for it in a constructor (`module_ref: ModuleRef`), or take one with `ApplicationContext.select(Module)`.
    """

    __slots__ = ("_node", "_resolver")

    def __init__(self, resolver: Resolver, node: Node) -> None:
        self._resolver, self._node = resolver, node

    @property
    def module(self) -> type:
        """The module's class."""
        return self._node.module

    @overload
    def get(self, token: Token[T]) -> T: ...
    @overload
    def get(self, token: type[T]) -> T: ...
    @overload
    def get(self, token: object) -> Any: ...  # noqa: ANN401  # as the token, so the result
    def get(self, token: object) -> Any:
        """The one instance of a singleton.

        Raises:
            NotFound: the module can't see it. WrongScope: it is job-scoped or transient: use `resolve`.
        """
        return self._resolver.get_in(token, self._node)

    @overload
    def get_all(self, token: Token[T]) -> list[T]: ...
    @overload
    def get_all(self, token: type[T]) -> list[T]: ...
    @overload
    def get_all(self, token: object) -> list[Any]: ...
    def get_all(self, token: object) -> list[Any]:
        """What the module sees under a `ManyToken`, as a list; of any other token the one instance, or nothing."""
        return self._resolver.get_all_in(token, self._node)

    @overload
    async def resolve(self, token: Token[T]) -> T: ...
    @overload
    async def resolve(self, token: type[T]) -> T: ...
    @overload
    async def resolve(self, token: object) -> Any: ...  # noqa: ANN401  # as the token, so the result
    async def resolve(self, token: object) -> Any:
        """Of any scope: the current job's instance, a new one of a transient provider, or the singleton.

        Raises:
            OutOfScope: it is job-scoped, and no job is current.
        """
        return await self._resolver.resolve_in(token, self._node)

    async def create(self, cls: type[T]) -> T:
        """A new object of a class that no module needs to provide, with the dependencies that the module's own providers would get.

        Inside a job its job-scoped dependencies are those of the job. What must be closed for it (a transient generator) is closed
        with the job, else with the application. Each call makes another object; nothing keeps it, and no hook of it runs.

        Raises:
            GraphErrors: a dependency can't be resolved here. OutOfScope: one is job-scoped, and no job is current.
        """
        return cast("T", await self._resolver.create_in(cls, self._node))

    def __repr__(self) -> str:
        return f"<ModuleRef of {self._node.name}>"
