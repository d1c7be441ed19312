"""Says what is wrong with a call that Python would refuse with a bare TypeError: an option that isn't there, an argument without
its name or none at all, a decorator without brackets.

Signatures stay as they are written, for type checkers and for `inspect`: a call goes to the function as it came, and is looked at
only if that raises. (`toril.di.caller_place` takes no notice of the frame that lies between.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from types import CodeType
from typing import Any, Final, TypeVar, cast

from toril.errors import InvalidCallError
from toril.spelling import near, snake

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ClassT = TypeVar("ClassT", bound=type)

_REST: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

BETWEEN: Final[set[CodeType]] = set()
"""The code of the wrappers."""


def explained(name: str = "", fixes: Mapping[str, str] | None = None, extra: str = "") -> Callable[[FunctionT], FunctionT]:
    """Let calls of a function with arguments that it doesn't take raise InvalidCallError.

    Args:
        name: what errors call it; not set: as it is written, `QueueModule.for_root`.
        fixes: what to say about a keyword that some people will try.
        extra: the same about an argument too many.
    """

    def decorate(function: FunctionT) -> FunctionT:
        shown = name or function.__qualname__

        def explain(error: TypeError, args: Sequence[object], given: Mapping[str, object]) -> TypeError | InvalidCallError:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                return error  # from inside
            return _problem(function, shown, args, given, fixes or {}, extra) or error

        @functools.wraps(function)
        def call(*args: object, **given: object) -> object:
            try:
                return function(*args, **given)
            except TypeError as error:
                if (told := explain(error, args, given)) is error:
                    raise
                raise told from None

        @functools.wraps(function)
        async def call_async(*args: object, **given: object) -> object:
            try:
                made = function(*args, **given)  # nothing of it runs yet
            except TypeError as error:
                raise explain(error, args, given) from None
            return await made

        BETWEEN.add(cast("Any", call).__code__)
        return cast("FunctionT", call_async if inspect.iscoroutinefunction(function) else call)

    return decorate


def explained_class(name: str = "", fixes: Mapping[str, str] | None = None) -> Callable[[ClassT], ClassT]:
    """The same for what a class is made with. Stands above `@dataclass`."""

    def decorate(cls: ClassT) -> ClassT:
        made: Any = cls
        made.__init__ = explained(name or cls.__name__, fixes)(made.__init__)
        return cls

    return decorate


def no_such_option(name: str, option: str, known: Sequence[str], fixes: Mapping[str, str]) -> InvalidCallError:
    """`name` was given an option that it doesn't have; `fixes` come before what is near."""
    close = near(option, known)
    if fix := fixes.get(snake(option)):
        reason = fix
    elif close:
        reason = f"did you mean {' or '.join(map(repr, close))}?"
    else:
        reason = f"there are {', '.join(known)}" if known else "it has none"
    return InvalidCallError(name, f"has no option {option!r}; {reason}", option)


def _problem(
    function: Callable[..., Any], name: str, args: Sequence[object], given: Mapping[str, object], fixes: Mapping[str, str], extra: str
) -> InvalidCallError | None:
    """What a call gives too much or too little; None: neither."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters, args = parameters[1:], args[1:]
    kinds = {each.kind for each in parameters}
    named = [each.name for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    if Parameter.VAR_KEYWORD not in kinds and (unknown := [option for option in given if option not in named]):
        options = [each.name for each in parameters if each.kind is Parameter.KEYWORD_ONLY or each.default is not Parameter.empty]
        return no_such_option(name, unknown[0], options, fixes)
    most = sum(each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for each in parameters)
    if Parameter.VAR_POSITIONAL not in kinds and len(args) > most:
        value = args[most]
        problem = extra if extra and not _may_be_decorated(value) else _misplaced(name, value, most, named)
        return InvalidCallError(name, problem, f"argument {most + 1}")
    required = [each for each in parameters if each.default is Parameter.empty and each.kind not in _REST]
    missing = [each.name for each in required if each.name not in given and each not in parameters[: len(args)]]
    return InvalidCallError(name, _lacking(name, missing, required), missing[0]) if missing else None


def _lacking(name: str, missing: Sequence[str], required: Sequence[Parameter]) -> str:
    if name.startswith("@") and missing[0] == "cls":
        return f"takes no brackets: write {name}"
    call = ", ".join(f"{each.name}=…" if each.kind is Parameter.KEYWORD_ONLY else each.name for each in required)
    return f"needs {' and '.join(map(repr, missing))}: write {name}({call})"


def _may_be_decorated(value: object) -> bool:
    return callable(value) or isinstance(value, classmethod)


def _misplaced(name: str, value: object, most: int, options: Sequence[str]) -> str:
    if name.startswith("@") and not most and _may_be_decorated(value):
        return f"needs brackets: write {name}()"
    if isinstance(value, type) and "imports" in options:
        return f"takes its lists as keywords: write imports=[{value.__name__}] (or providers=[{value.__name__}])"
    if option := next((option for option in options[most:] if snake(type(value).__name__).endswith(option)), None):
        return f"takes {type(value).__name__} as a keyword: write {option}={type(value).__name__}(…)"
    if isinstance(value, Mapping):
        keys = [key for key in cast("Mapping[object, object]", value) if isinstance(key, str)]
        return f"takes options as keywords, not in a dict: write {', '.join(f'{key}=…' for key in keys) or 'name=value'}"
    return f"takes {most or 'no'} argument{'' if most == 1 else 's'} without a name; write the others as keywords, name=value"
