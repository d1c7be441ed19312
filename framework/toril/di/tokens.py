"""What a dependency can be asked by: types, typed tokens, names; and the marks that say so in an annotation."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection
from types import GenericAlias, UnionType
from typing import Annotated, Any, Generic, NewType, Protocol, TypeAlias, TypeVar, Union, cast, get_args, get_origin, runtime_checkable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Token(Generic[T]):
    """A name for something whose type is not enough: `DEFAULT_ATTEMPTS = Token[int]("DEFAULT_ATTEMPTS")`.

    Compared by identity, so two tokens never meet by spelling. A subclass may define `__eq__` and `__hash__` where meeting
    by spelling is wanted (a queue is found by its name), and may have a method `unresolved_hint` (see `HintingToken`).
    """

    def __init__(self, token_name: str) -> None:
        self.token_name = token_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_name!r})"


class ManyToken(Token[T]):
    """A name for several things, which are asked for as a list: `HEALTH_CHECKS = ManyToken[HealthCheck]("HEALTH_CHECKS")`.

    Each module may provide any number: `provide(HEALTH_CHECKS, use_class=RedisCheck)`, once more with `DiskCheck`. Who asks for
    `checks: Annotated[list[HealthCheck], Inject(HEALTH_CHECKS)]` gets what the module sees, in this order: its own, what its imports
    export, what global modules export; each in the order in which it is listed. From outside: `ctx.get_all(HEALTH_CHECKS)`.

    Args:
        everywhere: the list has what any module provides, exported or not.
    """

    def __init__(self, token_name: str, *, everywhere: bool = False) -> None:
        super().__init__(token_name)
        self.everywhere = everywhere


def as_many(token: object) -> ManyToken[Any] | None:
    """The token, if it is one of many."""
    many: Any = token
    return many if isinstance(token, ManyToken) else None


class Member(Token[object]):
    """One of the things that a module provides under a `ManyToken`."""

    def __init__(self, of: ManyToken[Any], number: int) -> None:
        super().__init__(of.token_name)
        self.of, self.number = of, number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and other.of == self.of and other.number == self.number

    def __hash__(self) -> int:
        return hash((self.of, self.number))


@runtime_checkable
class HintingToken(Protocol):
    """A token that can say why nothing provides it."""

    def unresolved_hint(self, tokens: Collection[object]) -> str | None:
        """A sentence for whoever asked for this token in vain; `tokens` are all that the graph has."""
        ...


class Inject:
    """Says by which token a parameter is asked for: `attempts: Annotated[int, Inject(DEFAULT_ATTEMPTS)]`.

    Works as a default value, too (`attempts=Inject(DEFAULT_ATTEMPTS)`), though type checkers can't follow that form.
    Subclasses give a family of tokens its own spelling: `Annotated[Queue, InjectQueue("emails")]`.
    """

    def __init__(self, token: object) -> None:
        self.token = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}({token_name(self.token)})"


class ForwardRef:
    """Made by `forward_ref`: a class that may be read only after all files are imported."""

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target

    def resolve(self) -> object:
        """The class. Whatever the callable raises comes out, as a rule a NameError for a name that never got defined."""
        return self._target()


def forward_ref(target: Callable[[], object]) -> ForwardRef:
    """Name a module or class that is defined later, or break a cycle of constructors on one of its edges.

    `imports=[forward_ref(lambda: UsersModule)]` is needed where two files import each other.
    `users: Annotated[UsersService, forward_ref(lambda: UsersService)]` lets two constructors need each other: the object is made
    first and its `__init__` called later, so **its attributes are unset while the partner's `__init__` runs**. `Lazy[UsersService]`
    is the safer form.
    """
    return ForwardRef(target)


class Lazy(Generic[T_co]):
    """A dependency that is looked up when it is used: `mailer: Lazy[Mailer]`, then `self.mailer.get()`.

    It breaks cycles, and it lets something that lives long reach something job-scoped: `get()` then answers with the instance of
    the job that is current, the same one that everything else in that job sees. Of a transient provider each call makes a new one.
    """

    __slots__ = ("_get", "_resolve", "_token")

    def __init__(self, token: object, get: Callable[[], T_co], resolve: Callable[[], Awaitable[T_co]]) -> None:
        self._token, self._get, self._resolve = token, get, resolve

    def get(self) -> T_co:
        """The object.

        Raises:
            OutOfScope: it is job-scoped, and no job is current.
            WrongScope: making it needs an `await`: use `resolve()`.
            NotReady: the application has not created it yet, or is closed.
        """
        return self._get()

    async def resolve(self) -> T_co:
        """The object, also where making it needs an `await`. Raises as `get` does."""
        return await self._resolve()

    def __repr__(self) -> str:
        return f"Lazy[{token_name(self._token)}]"


JOB_REF: Token[Any] = Token("JOB_REF")
"""The current job. `Any`, since the container doesn't know what a job is; the layer above registers its own types for it."""

REQUEST = JOB_REF
"""Nest's word for what started the scope."""

INQUIRER: Token[object] = Token("INQUIRER")
"""For transient providers: the class (or factory function) that this instance is made for; None if nobody's constructor asked."""

JobRef: TypeAlias = Annotated[Any, Inject(JOB_REF)]
"""As an annotation: the current job. Whoever asks for it is job-scoped."""


_BUILTINS: frozenset[object] = frozenset(
    {str, bytes, bytearray, bool, int, float, complex, object, type, type(None), list, tuple, dict, set, frozenset, Any, memoryview, range}
)


def is_builtin_type(token: object) -> bool:
    """Whether this is a type that says nothing about what is wanted, so it is no token by itself."""
    origin = get_origin(token)
    return token in _BUILTINS or (origin is not None and origin in _BUILTINS)


def is_value_type(token: object) -> bool:
    """Whether it is a builtin type or a class of the standard library (`Decimal`, `Path`), of which there are any number of values."""
    cls = get_origin(token) or token
    return is_builtin_type(token) or (isinstance(cls, type) and cls.__module__.partition(".")[0] in sys.stdlib_module_names)


def is_token(value: object) -> bool:
    """Whether something can be provided and asked for: a class, also a parametrised one, a NewType, text, what has a `token_name`."""
    if isinstance(value, type | str | NewType):
        return True
    origin = get_origin(value)
    if origin is not None:
        return isinstance(origin, type) and origin is not UnionType
    return isinstance(getattr(value, "token_name", None), str) and _is_hashable(value)


def plain_token(value: object) -> object:
    """The token inside a mark: of `Inject(x)`, of `Annotated[T, Inject(x)]`, of a `forward_ref`; else the value itself."""
    while True:
        if isinstance(value, Inject):
            value = value.token
        elif isinstance(value, ForwardRef):
            value = value.resolve()
        elif get_origin(value) is Annotated:
            arguments = get_args(value)
            value = next((mark for mark in arguments[1:] if isinstance(mark, Inject | ForwardRef)), arguments[0])
        else:
            return value


def token_name(token: object) -> str:
    """How messages call a token: a class by its name, text in quotes, others by their `token_name`."""
    if get_origin(token) in (Union, UnionType):
        return " | ".join(token_name(argument) for argument in get_args(token))
    if isinstance(token, GenericAlias) or get_origin(token) is not None:
        arguments = ", ".join(token_name(argument) for argument in get_args(token))
        return f"{token_name(get_origin(token))}[{arguments}]"
    if isinstance(token, type):
        return token.__name__
    if isinstance(token, str):
        return repr(token)
    if isinstance(token, list):  # the arguments of a Callable
        parts = cast("list[object]", token)
        return "[" + ", ".join(token_name(part) for part in parts) + "]"
    name = getattr(token, "token_name", None)
    if isinstance(name, str):
        return name
    return getattr(token, "__name__", None) or repr(token)


def lazily(token: object) -> str:
    """How messages write the annotation that asks for a token lazily."""
    if token is JOB_REF:
        return "Lazy[JobRef]"
    is_class = isinstance(get_origin(token) or token, type)
    return f"Lazy[{token_name(token)}]" if is_class else f"Annotated[Lazy[...], Inject({token_name(token)})]"


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
