"""`Creation`: what `WorkerFactory.create` and `Test….compile` return, to be awaited or entered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
MadeT = TypeVar("MadeT", bound=AbstractAsyncContextManager[Any, None])


class Creation(Coroutine[Any, Any, MadeT]):
    """Makes something once: `made = await …`, or `async with … as made`, which enters it, too.

    It is a coroutine, so that `asyncio.run` and `asyncio.create_task` take it.

    Args:
        making: makes it.
        call: how it was called, for the message to somebody who forgets both.
    """

    def __init__(self, making: Coroutine[Any, Any, MadeT], call: str) -> None:
        self._making = making
        self._call = call
        self._made: MadeT | None = None

    def __await__(self) -> Generator[Any, Any, MadeT]:
        return self._making.__await__()

    def send(self, value: Any, /) -> Any:  # noqa: ANN401 -- between the event loop and what it runs
        """As of any coroutine; for the event loop."""
        return self._making.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 -- see above
        """As of any coroutine; for the event loop."""
        return self._making.throw(*error)

    def close(self) -> None:
        """Give it up before it was awaited: nothing is made."""
        self._making.close()

    async def __aenter__(self) -> MadeT:
        made = await self._making
        await made.__aenter__()
        self._made = made
        return made

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._made is not None  # only __aenter__ leads here
        await self._made.__aexit__(kind, error, trace)

    if not TYPE_CHECKING:  # type checkers report a name that isn't there by themselves

        def __getattr__(self, name: str) -> object:
            call = self.__dict__.get("_call", "this")
            raise AttributeError(
                f"{call} was not awaited yet, and what it makes is what has {name!r}: "
                f"write `made = await {call}`, or `async with {call} as made:`",
                name=name,
                obj=self,
            )


def creates(make: Callable[P, Coroutine[Any, Any, MadeT]]) -> Callable[P, Creation[MadeT]]:
    """Let what an `async def` makes be entered without an `await` before."""

    @functools.wraps(make)
    def begin(*args: P.args, **kwargs: P.kwargs) -> Creation[MadeT]:
        return Creation(make(*args, **kwargs), f"{make.__qualname__}(…)")

    return begin
