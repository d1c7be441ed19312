"""Whether a value of one type may stand where another is asked for, as far as that can be told at run time.

Type checkers know better; this is for those who don't run one. So where the answer can't be had (protocols, type variables,
arguments of generic classes that one side leaves out) it is yes: what is refused is surely wrong.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Never, NewType, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType, is_typeddict

_ANYTHING = (Any, object, Never, NoReturn, ...)
_WIDER: dict[object, tuple[type, ...]] = {int: (float, complex), bool: (float, complex), float: (complex,)}
"""What type checkers let stand for each other though neither class descends from the other."""


def says_nothing(hint: object) -> bool:
    """Whether an annotation leaves open what it is: `Any`, `object`, a type variable, and what never comes to be."""
    return any(hint is each for each in _ANYTHING) or isinstance(hint, TypeVar)


def fits(source: object, target: object) -> bool:
    """Whether a value of type `source` may stand where `target` is asked for; True where that can't be told.

    >>> fits(bool, int), fits(int, int | None), fits(int, str), fits(list[int], list[str])
    (True, True, False, False)
    """
    source, target = bare_type(source), bare_type(target)
    if says_nothing(source) or says_nothing(target) or source == target:
        return True
    if get_origin(source) in (Union, types.UnionType):
        return all(fits(each, target) for each in get_args(source))
    if get_origin(target) in (Union, types.UnionType):
        return any(fits(source, each) for each in get_args(target))
    if get_origin(target) is Literal:
        return get_origin(source) is Literal and set(get_args(source)) <= set(get_args(target))
    if get_origin(source) is Literal:
        return all(fits(cast("object", type(value)), target) for value in get_args(source))
    if isinstance(target, NewType):
        return isinstance(source, NewType) and fits(source.__supertype__, target)
    if isinstance(source, NewType):
        return fits(source.__supertype__, target)
    return _class_fits(source, target)


def bare_type(hint: object) -> object:
    """An annotation without what surrounds its type: `Annotated`, the name of an alias, None for its type.

    >>> bare_type(Annotated[int, "at least 1"]), bare_type(None)
    (<class 'int'>, <class 'NoneType'>)
    """
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, TypeAliasType):
            hint = hint.__value__
        else:
            return type(None) if hint is None else hint


def _class_fits(source: object, target: object) -> bool:
    of_source, of_target = get_origin(source) or source, get_origin(target) or target
    if not isinstance(of_source, type) or not isinstance(of_target, type) or getattr(of_target, "_is_protocol", False):
        return True
    if is_typeddict(of_target):  # compared by their fields; they are no classes at run time
        return is_typeddict(of_source) and _fields_fit(of_source, of_target)
    try:
        is_below = issubclass(dict if is_typeddict(of_source) else of_source, of_target)
    except TypeError:  # a class that refuses the question
        return True
    if not is_below:
        return of_target in _WIDER.get(of_source, ())
    given, wanted = get_args(source), get_args(target)
    if of_source is not of_target or not given or not wanted or ... in (*given, *wanted):
        return True
    return len(given) == len(wanted) and all(fits(one, other) for one, other in zip(given, wanted, strict=True))


def _fields_fit(source: type, target: type) -> bool:
    try:
        given, wanted = get_type_hints(source), get_type_hints(target)
    except NameError:
        return True
    return all(name in given and fits(given[name], hint) for name, hint in wanted.items())
