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
    count = len(generic.__parameters__)  # type: ignore[attr-defined]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # each generic class has them
    given: tuple[Any, ...] = ()
    written = getattr(instance, "__orig_class__", None)
    for alias in (written, *getattr(type(instance), "__orig_bases__", ())):
        if alias is not None and get_origin(alias) is not None and issubclass(get_origin(alias), generic):
            given = get_args(alias)
            break
    for argument in given:
        if isinstance(argument, (str, ForwardRef)):
            name = argument if isinstance(argument, str) else argument.__forward_arg__
            raise InvalidOptionError(f"{generic.__name__}[…]", name, "write the type itself, not its name in quotes")
    known = [Any if isinstance(argument, TypeVar) else argument for argument in given]
    return (*known, *[Any] * (count - len(known)))
