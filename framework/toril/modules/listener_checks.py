"""Whether a method can be called as its listener's decorator says: with so many arguments, of these types."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Final

from toril.errors import ProcessorError
from toril.queues.events import QueueEvent
from toril.queues.job import Job
from toril.queues.listeners import LISTENER_ARGUMENTS, LocalEvent
from toril.queues.states import JobState
from toril.queues.type_fit import fits, says_nothing
from toril.worker.signature import read_parameter


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a listener."""

    name: str
    hint: object
    written: str
    """The type as one would write it."""
    source: str = ""
    """What more there is to say about it in an error: where the type comes from."""

    def __str__(self) -> str:
        return f"{self.name}: {self.written}"


_LOCAL: Final = {
    argument.name: argument
    for argument in (
        Argument("job", Job, "Job"),
        Argument("job_id", str, "str"),
        Argument("result", Any, "Any"),
        Argument("value", Any, "Any"),
        # Most are Exceptions, and a listener that says so is right nearly always: so that is not refused.
        Argument("error", Exception, "BaseException"),
        Argument("final", bool, "bool"),
        Argument("count", int, "int"),
        Argument("state", JobState, "JobState"),
    )
}


def local_arguments(event: LocalEvent) -> list[Argument]:
    """What `@on_queue_…` passes."""
    return [_LOCAL[name] for name in LISTENER_ARGUMENTS[event]]


def fleet_arguments(event: type[QueueEvent]) -> list[Argument]:
    """What `@on_global_queue_…` passes."""
    return [Argument("event", event, event.__name__, " (from toril.queues.events)")]


def misfits(cls: type, method: str, decorator: str, arguments: Sequence[Argument], names: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the parameters of a listener; those without an annotation may be anything.

    Args:
        names: what annotations may name besides what the method's own file can see.
    """
    function = getattr(cls, method)
    this = ["self"] if inspect.isfunction(inspect.getattr_static(cls, method)) else []
    signature = inspect.signature(function)
    called_with = ", ".join(map(str, arguments))
    try:
        bound = signature.bind(*this, *arguments)
    except TypeError:
        yield f"it is called as {method}({', '.join(['self', *(argument.name for argument in arguments)])}): write it so"
        return
    right_call = ", ".join(argument.name for argument in arguments)
    for name, given in bound.arguments.items():
        others = {argument.name for argument in arguments if argument is not given}
        if isinstance(given, Argument) and name in others and signature.parameters[name].annotation is Parameter.empty:
            yield f"{decorator} calls it with ({right_call}), so {name!r} would be the {given.name}: write ({right_call})"
            return
    for name, given in bound.arguments.items():
        parameter = signature.parameters[name]
        for argument in given if parameter.kind is Parameter.VAR_POSITIONAL else [given]:
            if not isinstance(argument, Argument) or says_nothing(argument.hint):
                continue
            try:
                written, hint = read_parameter(function, parameter, names)
            except ProcessorError as error:
                yield error.reason
                break
            if hint is not Parameter.empty and not fits(argument.hint, hint):
                fix = f"write `{argument}` there{argument.source}"
                yield f"`{written}` does not fit {decorator}, which is called with ({called_with}): {fix}"
                break
