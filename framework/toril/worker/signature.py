"""What a handler takes and returns, read from its annotations.

The first parameter (after `self`) is the job, or the job's data; a parameter annotated `Job[...]` is the job wherever it stands;
all others are left to the layer that injects things.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter
from typing import Any, TypeAlias, Union, get_args, get_origin

from toril.callables import is_async, place_of
from toril.errors import ProcessorError
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.payloads import ANY_DATA, ANY_RESULT, Part, PayloadType
from toril.queues.type_fit import bare_type, fits, says_nothing

Types: TypeAlias = tuple[PayloadType[Any], PayloadType[Any]]
"""Of data and result."""


class Given(Enum):
    """What a worker itself passes to a handler."""

    JOB = "job"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one annotation says about the data or the result of a job."""

    part: Part
    hint: Any
    where: str
    """The annotation in its place, `job: Job[WelcomeEmail, Receipt]` or `-> Receipt`."""
    is_returned: bool = False
    """The handler makes it, so it must fit what is asked for, and not the other way round."""


@dataclass(frozen=True, slots=True)
class HandlerSignature:
    """The parameters of a handler, and what its annotations say. Made by `read_handler`."""

    parameters: tuple[Parameter, ...]
    """Without `self`, `*args` and `**kwargs`."""
    given: Mapping[str, Given]
    """What the worker passes, by the names of its parameters; nothing if the handler takes neither job nor data."""
    claims: tuple[Claim, ...]
    is_async: bool
    """Calling it gives an awaitable; otherwise it runs in a thread."""
    data_hint: Any = Parameter.empty
    """How the parameter that takes the data is annotated, if there is one."""

    @property
    def others(self) -> tuple[Parameter, ...]:
        """The parameters that somebody else must fill, in order."""
        return tuple(each for each in self.parameters if each.name not in self.given)

    @property
    def takes_only_the_job(self) -> bool:
        """Whether it can be called with the job and nothing else, as it is."""
        first = self.parameters[:1]
        return all(each.kind is not each.KEYWORD_ONLY and self.given == {each.name: Given.JOB} for each in first)

    def types(self, definition: JobDef[Any, Any] | None = None) -> Types:
        """The types of data and result: the definition's; what that leaves open, the annotations say."""
        payload: PayloadType[Any] = ANY_DATA if definition is None else definition.payload
        result: PayloadType[Any] = ANY_RESULT if definition is None else definition.result
        for claim in self.claims:
            if claim.part == "data" and payload.is_any:
                payload = PayloadType[Any](claim.hint)
            elif claim.part == "result" and result.is_any:
                result = PayloadType[Any](claim.hint, "result")
        return payload, result

    def disagreements(self, definition: JobDef[Any, Any] | None = None) -> Iterator[str]:
        """Where annotations contradict the definition, or each other where there is none; each names both types and the place."""
        payload, result = self.types(definition)
        by = "another annotation" if definition is None else f"JobDef({definition.name!r})"
        for claim in self.claims:
            settled = (payload if claim.part == "data" else result).hint
            if not (fits(claim.hint, settled) if claim.is_returned else fits(settled, claim.hint)):
                ours, theirs = _names_of(claim.hint, settled)
                yield f"`{claim.where}` says that the {claim.part} is {ours}, but {by} says {theirs}: make them the same"

    def filled(self, call: Callable[..., Any], others: Mapping[str, object]) -> Callable[[Job[Any, Any]], Any]:
        """`call` (bound, if it is a method) as a function of the job alone, with these values for its other parameters."""
        if self.takes_only_the_job and not others:
            return call
        first, *rest = self.parameters
        values: dict[str, object] = {**others, **self.given}
        positional = [values[each.name] for each in self.parameters if each.kind is each.POSITIONAL_ONLY or each is first]
        named = {each.name: values[each.name] for each in rest if each.kind is not each.POSITIONAL_ONLY and each.name in values}
        if first.kind is first.KEYWORD_ONLY:
            named[first.name] = positional.pop(0)

        def filled(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- what the handler returns
            return call(*[_value(each, job) for each in positional], **{name: _value(each, job) for name, each in named.items()})

        return filled


def read_handler(call: Callable[..., Any], *, skip_self: bool = False, names: Mapping[str, Any] | None = None) -> HandlerSignature:
    """The signature of a function, method, partial or object with `__call__`.

    Args:
        skip_self: it is a method that isn't bound yet.
        names: what annotations may name besides what the function's own file can see.

    Raises:
        ProcessorError: an annotation can't be read that decides about the types of data and result.
    """
    reader = _Reader(call, names or {})
    signature = inspect.signature(call)
    parameters = _without_rest(list(signature.parameters.values())[1 if skip_self else 0 :])
    given: dict[str, Given] = {}
    claims: list[Claim] = []
    data_hint: Any = Parameter.empty
    for index, parameter in enumerate(parameters):
        hint = reader.hint_of(parameter.annotation, is_needed=index == 0)
        where = f"{parameter.name}: {_text(parameter.annotation)}"
        job_types = _types_of_job(hint)
        if job_types is not None:
            given[parameter.name] = Given.JOB
            claims += [Claim("data", job_types[0], where), Claim("result", job_types[1], where)]
        elif index == 0:
            is_open = hint is Any or hint is Parameter.empty
            given[parameter.name] = Given.JOB if is_open else Given.DATA
            data_hint = Parameter.empty if is_open else hint
            claims.append(Claim("data", hint, where))
    is_open = not any(claim.part == "result" and not says_nothing(claim.hint) for claim in claims)
    returned, is_awaitable = _returned(reader.hint_of(signature.return_annotation, is_needed=is_open), is_async(call))
    claims.append(Claim("result", returned, f"-> {_text(signature.return_annotation)}", is_returned=True))
    said = tuple(claim for claim in claims if claim.hint is not Parameter.empty and not says_nothing(claim.hint))
    return HandlerSignature(tuple(parameters), given, said, is_awaitable, data_hint)


def read_parameter(call: Callable[..., Any], parameter: Parameter, names: Mapping[str, Any] | None = None) -> tuple[str, Any]:
    """A parameter of a function as it is written, and what its annotation stands for (`Parameter.empty` without one).

    Raises:
        ProcessorError: the annotation can't be read.
    """
    return f"{parameter.name}: {_text(parameter.annotation)}", _Reader(call, names or {}).hint_of(parameter.annotation)


class _Reader:
    """Reads annotations of one function, each for itself, since `get_type_hints` of the whole fails for any part of it."""

    def __init__(self, call: Callable[..., Any], names: Mapping[str, Any]) -> None:
        function: Any = call
        while isinstance(function, functools.partial):
            function = function.func
        function = inspect.unwrap(getattr(function, "__func__", function))
        if not inspect.isfunction(function):
            function = type(function).__call__
        self._call = call
        self._names = {**getattr(function, "__globals__", {}), **names}

    def hint_of(self, annotation: object, *, is_needed: bool = True) -> Any:  # noqa: ANN401 -- an annotation is no type of its own
        """What an annotation, which may be or hold text, stands for; raises ProcessorError where it can't be read but is needed."""

        def holder() -> None: ...

        if annotation is Parameter.empty:
            return annotation
        holder.__annotations__ = {"it": annotation}
        try:
            return typing.get_type_hints(holder, self._names, include_extras=True)["it"]
        except Exception as error:  # evaluating a user's text can raise anything
            if not is_needed:
                return Parameter.empty
            reason = f"the annotation {annotation!r} of {place_of(self._call)} can't be read ({type(error).__name__}: {error})"
            if isinstance(error, NameError):
                reason += f": import {error.name or 'that name'} at run time, not only under TYPE_CHECKING"
            raise ProcessorError("?", reason) from error


def _without_rest(parameters: Sequence[Parameter]) -> list[Parameter]:
    """All but `*args` and `**kwargs`; where nothing else can take the job, `*args` does."""
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if not named or parameters[0].kind is Parameter.VAR_POSITIONAL:
        named[:0] = [each.replace(kind=each.POSITIONAL_ONLY) for each in parameters if each.kind is each.VAR_POSITIONAL]
    return named


def _types_of_job(hint: object) -> tuple[Any, Any] | None:
    """The types of data and result in `Job[A, B]`, also where it is optional; None if it is no job."""
    hint = bare_type(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return next((found for found in map(_types_of_job, get_args(hint)) if found is not None), None)
    if hint is not Job and get_origin(hint) is not Job:
        return None
    payload, result, *_ = (*get_args(hint), Any, Any)
    return payload, result


def _returned(hint: Any, awaits: bool) -> tuple[Any, bool]:  # noqa: ANN401 -- an annotation is no type of its own
    """The type of the result, and whether it comes in an awaitable: a plain function may say that it returns one."""
    of_hint = get_origin(hint) or hint
    if awaits or not isinstance(of_hint, type) or of_hint is Parameter.empty or not issubclass(of_hint, Awaitable):
        return hint, awaits
    return (get_args(hint) or (Any,))[-1], True


def _value(each: object, job: Job[Any, Any]) -> object:
    if each is Given.JOB:
        return job
    return job.data if each is Given.DATA else each


def _text(annotation: object) -> str:
    if annotation is type(None):
        return "None"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _names_of(one: object, other: object) -> tuple[str, str]:
    """Both types by name; where these are the same, with their modules."""
    texts = _text(one), _text(other)
    names = [
        each.__name__ if isinstance(each, type) and not get_args(each) and each is not type(None) else _text(each) for each in (one, other)
    ]
    return (names[0], names[1]) if names[0] != names[1] else texts
