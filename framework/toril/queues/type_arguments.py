"""What stands in the brackets of `JobDef[A, B](…)` and `Queue[A, B](…)`, at run time."""

from __future__ import annotations

from typing import Any, ForwardRef, get_args, get_origin

from typing_extensions import TypeVar

from toril.errors import InvalidOptionError


def type_arguments(instance: object, generic: type) -> tuple[Any, ...]:
    """The arguments given for `generic`, of which `instance` is one; `Any` for those that were not given.

    Python notes them on the instance *after* `__init__` has run, so this must be asked later, and never in `__init__`.

    Raises:
        InvalidOptionError: one of them is text; at run time it can't be looked up from here.
    """
    given = _find(getattr(instance, "__orig_class__", None) or type(instance), generic)
    for argument in given:
        if isinstance(argument, (str, ForwardRef)):
            name = argument if isinstance(argument, str) else argument.__forward_arg__
            raise InvalidOptionError(f"{generic.__name__}[…]", name, "write the type itself, not its name in quotes")
    return tuple(Any if isinstance(argument, TypeVar) else argument for argument in given)


def _find(kind: Any, generic: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- classes, and what stands for a class with its brackets
    """The arguments for `generic` in `kind`, a class or alias below it; what the brackets leave out is `Any`."""
    origin = get_origin(kind) or kind
    parameters: tuple[Any, ...] = getattr(origin, "__parameters__", ())
    given: tuple[Any, ...] = get_args(kind)
    given += (Any,) * (len(parameters) - len(given))
    if origin is generic:
        return given
    for base in getattr(origin, "__orig_bases__", origin.__bases__):
        if issubclass(get_origin(base) or base, generic):
            free: tuple[Any, ...] = getattr(base, "__parameters__", ()) if get_origin(base) else ()
            values = dict(zip(parameters, given, strict=True))
            return _find(base[tuple(values[parameter] for parameter in free)] if free else base, generic)
    return (Any,) * len(generic.__parameters__)
