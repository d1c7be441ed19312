"""From the annotations of a constructor or factory to what it depends on.

Each parameter is read for itself, since `typing.get_type_hints` fails as a whole when one name is missing. Names are looked up where
Python itself would find them: in the globals of the function that has the annotation (for an inherited constructor the base class'
file), and for what is defined inside a function in the names that a decorator saw there.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from toril.di.places import Namespace, undecorated
from toril.di.tokens import ForwardRef, Inject, Lazy, is_token, token_name


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """One parameter, as the container sees it."""

    name: str
    index: int
    token: object
    text: str
    """The parameter as messages show it: `"log: Logger"`."""
    is_keyword: bool = False
    """Can only be passed by name."""
    is_optional: bool = False
    """`T | None`: None where nothing provides it."""
    default: object = inspect.Parameter.empty
    is_lazy: bool = False
    is_forward: bool = False
    is_lazy_none: bool = False
    """`Lazy[T | None]`, as opposed to `Lazy[T] | None`: where nothing provides it, `get()` answers None."""

    @property
    def has_default(self) -> bool:
        """Whether the parameter can do without."""
        return self.default is not inspect.Parameter.empty

    @property
    def is_required(self) -> bool:
        """Whether there must be something to pass."""
        return not (self.has_default or self.is_optional)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A parameter that can't be read."""

    name: str
    index: int
    annotation: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Signature:
    """What a callable depends on, in the order of its parameters, and what of it could not be read."""

    dependencies: tuple[Dependency, ...] = ()
    problems: tuple[Unreadable, ...] = ()


class _UnreadableError(Exception):
    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason, hint)
        self.reason, self.hint = reason, hint


@dataclass(slots=True)
class _Meaning:
    """What is known so far about one annotation, while its layers are taken off."""

    token: object
    is_optional: bool = False
    is_lazy: bool = False
    is_forward: bool = False
    is_lazy_none: bool = False


def read_signature(target: Callable[..., object], namespaces: Sequence[Namespace]) -> Signature:
    """The dependencies of a class, a parametrised class, a function, a partial or an object with `__call__`."""
    function, is_bound = _function_of(target)
    if function is None:
        return Signature()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # written in C: it takes what it takes, and we have nothing for it
        return Signature()
    given = _given_by_partial(target)
    names = _Names(function, namespaces, _type_arguments(target))
    dependencies: list[Dependency] = []
    problems: list[Unreadable] = []
    wanted = [p for p in parameters[0 if is_bound else 1 :] if p.name not in given and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for index, parameter in enumerate(wanted):
        try:
            dependencies.append(_read_parameter(parameter, index, names))
        except _UnreadableError as problem:
            shown = "" if parameter.annotation is parameter.empty else _annotation_text(parameter.annotation)
            problems.append(Unreadable(parameter.name, index, shown, problem.reason, problem.hint))
    return Signature(tuple(dependencies), tuple(problems))


def read_inject_list(entries: Sequence[object]) -> tuple[Dependency, ...]:
    """The dependencies of a factory whose arguments are named by `inject=[...]`; raises ValueError for what is no token."""
    dependencies: list[Dependency] = []
    for index, entry in enumerate(entries):
        try:
            meaning = _peel(entry)
        except _UnreadableError as problem:
            raise ValueError(f"entry [{index}] of `inject` can't be read: {problem.reason}") from problem
        if not is_token(meaning.token):
            raise ValueError(f"entry [{index}] of `inject`, {entry!r}, is no token")
        dependencies.append(
            Dependency(
                name=f"inject[{index}]",
                index=index,
                token=meaning.token,
                text=f"inject[{index}]: {token_name(meaning.token)}",
                is_optional=meaning.is_optional,
                is_lazy=meaning.is_lazy,
                is_forward=meaning.is_forward,
                is_lazy_none=meaning.is_lazy_none,
            )
        )
    return tuple(dependencies)


def accepts(factory: Callable[..., object], positional: int) -> bool:
    """Whether a callable can be called with so many positional arguments and nothing else."""
    try:
        inspect.signature(factory).bind(*range(positional))
    except TypeError:
        return False
    except ValueError:  # written in C
        return True
    return True


# ── one parameter ─────────────────────────────────────────────────────────────────────────────────────────────


def _read_parameter(parameter: inspect.Parameter, index: int, names: _Names) -> Dependency:
    default = parameter.default
    if isinstance(default, Inject | ForwardRef):  # `p=Inject(TOKEN)`: the annotation is for the type checker only
        meaning, default = _peel(default), inspect.Parameter.empty
    elif parameter.annotation is parameter.empty:
        if default is parameter.empty:
            raise _UnreadableError("it has no annotation", "Annotate it with a type, or with Annotated[T, Inject(TOKEN)].")
        meaning = _Meaning(object)  # nobody provides `object`: the default is used
    else:
        meaning = _peel(names.evaluate(parameter.annotation))
    if not is_token(meaning.token):
        if default is not parameter.empty:
            meaning.token = object
        else:
            what = f"{token_name(meaning.token)} is no class and no token"
            raise _UnreadableError(what, "Say which provider is meant: Annotated[T, Inject(TOKEN)].")
    shown = token_name(meaning.token) if meaning.token is not object else _annotation_text(parameter.annotation)
    return Dependency(
        name=parameter.name,
        index=index,
        token=meaning.token,
        text=f"{parameter.name}: {shown}",
        is_keyword=parameter.kind is parameter.KEYWORD_ONLY,
        is_optional=meaning.is_optional,
        default=default,
        is_lazy=meaning.is_lazy,
        is_forward=meaning.is_forward,
        is_lazy_none=meaning.is_lazy_none,
    )


def _peel(annotation: object) -> _Meaning:
    """Take off Annotated, Lazy, Optional and marks, in whatever order they are nested, until a token is left."""
    meaning = _Meaning(annotation)
    while True:
        current, origin = meaning.token, get_origin(meaning.token)
        if isinstance(current, Inject):
            meaning.token = current.token
        elif isinstance(current, ForwardRef):
            meaning.is_forward = True
            try:
                meaning.token = current.resolve()
            except Exception as exc:
                raise _unreadable(current, exc) from exc
        elif origin is Annotated:
            inner, *marks = get_args(current)
            mark = next((mark for mark in marks if isinstance(mark, Inject | ForwardRef)), None)
            if mark is None:
                meaning.token = inner
            else:  # the mark names the token, but Optional and Lazy are told by the type
                outside = _peel(inner)
                meaning.is_optional |= outside.is_optional
                meaning.is_lazy |= outside.is_lazy
                meaning.is_lazy_none |= outside.is_lazy_none
                meaning.token = mark
        elif origin is Lazy:
            meaning.is_lazy = True
            (meaning.token,) = get_args(current)
        elif origin in (Union, UnionType) and NoneType in get_args(current):
            meaning.is_optional = True
            meaning.is_lazy_none = meaning.is_lazy
            rest = tuple(argument for argument in get_args(current) if argument is not NoneType)
            meaning.token = rest[0] if len(rest) == 1 else Union[rest]  # noqa: UP007  # made at run time
            if len(rest) > 1:
                return meaning
        else:
            return meaning


# ── names and functions ───────────────────────────────────────────────────────────────────────────────────────


class _Names:
    """Evaluates annotations of one function."""

    def __init__(self, function: object, namespaces: Sequence[Namespace], type_arguments: Mapping[object, object]) -> None:
        bare = undecorated(function)
        found: dict[str, Any] = getattr(bare, "__globals__", None) or vars(sys.modules.get(getattr(bare, "__module__", ""), typing))
        module, qualname = getattr(bare, "__module__", ""), getattr(bare, "__qualname__", "")
        # Names of the very function that defines the class hide globals; names of other functions are only a last resort. One dict
        # for both: the body of a lambda (`forward_ref(lambda: X)`) sees globals only.
        hiding = {name: value for space in namespaces if space.encloses(module, qualname) for name, value in space.names.items()}
        self._seen = {**found, **hiding} if hiding else found
        self._others = [space.names for space in namespaces if not space.encloses(module, qualname)]
        self._type_arguments = type_arguments

    def evaluate(self, annotation: object) -> object:
        if isinstance(annotation, type) and get_origin(annotation) is None:
            return annotation
        attempts: list[dict[str, Any]] = [self._seen, *({**names, **self._seen} for names in self._others)]
        failure: Exception | None = None
        for names in attempts:
            try:
                return self._substitute(_evaluate(annotation, names))
            except Exception as exc:  # noqa: BLE001  # evaluating a user's text can raise anything; it is reported, with its reason
                failure = failure or exc
        raise _unreadable(annotation, failure)

    def _substitute(self, annotation: object) -> object:
        if not self._type_arguments:
            return annotation
        if isinstance(annotation, TypeVar):
            return self._type_arguments.get(annotation, annotation)
        parameters: tuple[object, ...] = getattr(annotation, "__parameters__", ())
        if isinstance(annotation, type) or not parameters:
            return annotation
        generic: Any = annotation
        return generic[tuple(self._type_arguments.get(parameter, parameter) for parameter in parameters)]


def _evaluate(annotation: object, names: dict[str, Any]) -> object:
    """Resolve text, text inside text, and text inside `Optional[...]` and the like."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, names, include_extras=True)["it"]


def _unreadable(annotation: object, failure: Exception | None) -> _UnreadableError:
    if isinstance(failure, NameError):
        name = failure.name or str(failure)
        return _UnreadableError(
            f"the name {name!r} can't be found at run time",
            f"Import {name} for real, not under TYPE_CHECKING; if it is defined inside a function, define it above the "
            "decorator, and put @injectable() on the class.",
        )
    reason = f"evaluating it raised {type(failure).__name__}: {failure}"
    return _UnreadableError(reason, "An injected parameter needs a type that can be read at run time.")


def _annotation_text(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    return token_name(annotation) if annotation is not inspect.Parameter.empty else "no annotation"


def _function_of(target: Callable[..., object]) -> tuple[Callable[..., object] | None, bool]:
    """The function whose parameters count, and whether its first one is already bound."""
    cls = get_origin(target) or target
    if isinstance(cls, type):
        init: Any = inspect.getattr_static(cls, "__init__")
        if init is not object.__init__:
            return init, False
        new: Any = inspect.getattr_static(cls, "__new__")
        new = getattr(new, "__func__", new)
        return (None, True) if new is object.__new__ or not inspect.isfunction(new) else (new, False)
    if isinstance(target, functools.partial) or inspect.isroutine(target):
        return cast("Callable[..., object]", target), True
    call: Callable[..., object] = getattr(type(target), "__call__")  # noqa: B004, B009  # a class' own, not looked up on the object
    return call, False


def _given_by_partial(target: object) -> frozenset[str]:
    given: set[str] = set()
    while isinstance(target, functools.partial):
        given.update(target.keywords)
        target = target.func
    return frozenset(given)


def _type_arguments(target: object) -> dict[object, object]:
    """What the type variables stand for, in `Repo[User]` and in the bases of `class UserRepo(Repo[User])`."""
    meaning: dict[object, object] = {}
    cls = get_origin(target) or target
    if not isinstance(cls, type):
        return meaning
    pending: list[object] = [target, *(base for each in cls.__mro__ for base in each.__dict__.get("__orig_bases__", ()))]
    for alias in pending:
        origin = get_origin(alias)
        for parameter, argument in zip(getattr(origin, "__parameters__", ()), get_args(alias), strict=False):
            meaning.setdefault(parameter, meaning.get(argument, argument) if isinstance(argument, TypeVar) else argument)
    return {parameter: argument for parameter, argument in meaning.items() if not isinstance(argument, TypeVar)}
