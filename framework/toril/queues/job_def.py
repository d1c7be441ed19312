"""A job's definition: its name, the types of its data and result, and its options, said once for producers and handlers."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, cast, get_args, get_origin

from typing_extensions import TypeVar, Unpack

from toril.calls import explained
from toril.queues.option_checks import check_job_name
from toril.queues.options import JobOptionFields, JobOptions
from toril.queues.payloads import PayloadType
from toril.queues.type_arguments import type_arguments

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)


class JobDef(Generic[DataT, ResultT]):
    """Names a kind of job once and types it from end to end.

        WELCOME = JobDef[WelcomeEmail, Receipt]("welcome-email", attempts=5)

    Args:
        name: the job's name on the wire.
        options: what jobs of this kind have unless their handler or `add` says otherwise.

    Without types in brackets, data and result are whatever JSON holds. Two definitions with the same name and types are equal.
    """

    # A slotted or frozen class would lose `__orig_class__`, and with it the types: so this is a plain class.

    @explained("JobDef")
    def __init__(self, name: str, **options: Unpack[JobOptionFields]) -> None:
        check_job_name(name)
        self.name = name
        self.options = JobOptions(**options)

    @cached_property
    def payload(self) -> PayloadType[DataT]:
        """The type of the data."""
        return cast("PayloadType[DataT]", PayloadType(self._types[0]))

    @cached_property
    def result(self) -> PayloadType[ResultT]:
        """The type of the result."""
        return cast("PayloadType[ResultT]", PayloadType(self._types[1], "result"))

    @property
    def _types(self) -> tuple[Any, ...]:
        return type_arguments(self, JobDef)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobDef):
            return NotImplemented
        theirs: JobDef[Any, Any] = other  # pyright: ignore[reportUnknownVariableType]  # isinstance leaves the arguments open
        return self.name == theirs.name and self._types == theirs._types

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        if self.payload.is_any and self.result.is_any:
            return f"JobDef({self.name!r})"
        return f"JobDef[{self.payload.model}, {self.result.model}]({self.name!r})"


def uncalled(given: object) -> str | None:
    """What to say of a `JobDef[Data, Result]` without its call, which is no definition yet; None: it is something else."""
    if given is not JobDef and get_origin(given) is not JobDef:
        return None
    types = ", ".join(getattr(one, "__name__", str(one)) for one in get_args(given)) or "Data, Result"
    return f'needs a definition, and JobDef is the class of them: call it, as in JobDef[{types}]("name")'
