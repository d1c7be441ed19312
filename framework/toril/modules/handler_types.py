"""For type checkers: which methods `@process(WELCOME)` may decorate. Nothing here does anything at run time.

A decorator that only checks must give back the very type that it was given, names of parameters included. Python's type system has no
"a method that is of this type, too", but an overloaded protocol is just that: a function must fit each of its signatures. The first
one takes whatever there is, for the way back; the second one is what is asked for. (mypy can't follow that where a method says `/`.)
"""

# ruff: noqa: ANN401 -- what stands beside job and data is injected, and may be anything

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from toril.queues.job import Job

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")
DataT_contra = TypeVar("DataT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)


class JobMethod(Protocol[P, T_co, DataT, ResultT]):  # pyright: ignore[reportInvalidTypeVarUse]  # Job's are invariant
    """A method that takes the job first."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, this: Any, job: Job[DataT, ResultT], /, *args: Any, **kwargs: Any) -> Awaitable[ResultT] | ResultT: ...


class DataMethod(Protocol[P, T_co, DataT_contra, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse]  # mypy says contravariant
    """A method that takes the job's data first."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, this: Any, data: DataT_contra, /, *args: Any, **kwargs: Any) -> Awaitable[ResultT_co] | ResultT_co: ...


class JobFunction(Protocol[P, T_co, DataT, ResultT]):  # pyright: ignore[reportInvalidTypeVarUse]  # as in JobMethod
    """A static method that takes the job first."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, job: Job[DataT, ResultT], /, *args: Any, **kwargs: Any) -> Awaitable[ResultT] | ResultT: ...


class HandlerDecorator(Protocol[DataT, ResultT]):  # pyright: ignore[reportInvalidTypeVarUse]  # as in JobMethod
    """What `@process(WELCOME)` is, for a `JobDef[DataT, ResultT]`: it takes methods that agree with it, and leaves them as they are."""

    @overload
    def __call__(self, method: JobMethod[P, T_co, DataT, ResultT], /) -> Callable[P, T_co]: ...
    @overload
    def __call__(self, method: DataMethod[P, T_co, DataT, ResultT], /) -> Callable[P, T_co]: ...
    @overload
    def __call__(self, method: JobFunction[P, T_co, DataT, ResultT], /) -> Callable[P, T_co]: ...
