"""Modules: classes that gather providers, say which of them others may use, and which modules they use themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Final, TypeVar, cast, get_origin

from toril.calls import explained
from toril.di.errors import InvalidModule
from toril.di.places import NOWHERE, Namespace, Place, attach, caller_namespace, caller_place, own_metadata
from toril.di.tokens import token_name
from toril.errors import InvalidCallError
from toril.telemetry.redaction import redact_item

ModuleT = TypeVar("ModuleT", bound=type)

_PLAIN: Final = (str, int, float, NoneType)
"""What says all in one word."""


@dataclass(frozen=True, slots=True)
class ModuleMetadata:
    """What `@module` notes on a class. The lists are kept as given; the scanner checks them."""

    imports: tuple[object, ...]
    providers: tuple[object, ...]
    exports: tuple[object, ...]
    is_global: bool
    place: Place
    namespace: Namespace | None


@dataclass(frozen=True, eq=False)
class DynamicModule:
    """A module with options, as returned by methods such as `QueueModule.register_queue("emails")`.

    Its lists come on top of those that `@module` gave the class.

    Args:
        module: the class, decorated with `@module`.
        key: what makes two of them the same module; both imports then share its instances, and different options are an error.
            Without a key each DynamicModule object is a module of its own.
        name: how messages and `ctx.container` call it; by default the class' name, and the key if it is text.
        is_global: its exports are visible everywhere, without importing it.
        options: what to compare when two have one key. By default the three lists, in which lambdas are never equal.
    """

    module: type
    imports: Sequence[object] = field(default=(), kw_only=True)
    providers: Sequence[object] = field(default=(), kw_only=True)
    exports: Sequence[object] = field(default=(), kw_only=True)
    key: Hashable | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    is_global: bool = field(default=False, kw_only=True)
    options: object = field(default=None, kw_only=True)
    place: Place = field(default=NOWHERE, kw_only=True, repr=False)
    namespace: Namespace | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_lists("DynamicModule", imports=self.imports, providers=self.providers, exports=self.exports)
        hash(self.key)  # a key that can't be compared fails here, where it was written
        if self.place is NOWHERE:
            object.__setattr__(self, "place", caller_place(2))  # the dataclass' __init__ lies between
        if self.namespace is None:
            object.__setattr__(self, "namespace", caller_namespace(2))

    @property
    def display_name(self) -> str:
        """`name`, or the class with its key."""
        if self.name is not None:
            return self.name
        cls = token_name(self.module)
        return f"{cls}({self.key})" if isinstance(self.key, str) else cls

    def differing_options(self, other: DynamicModule) -> tuple[str, ...]:
        """The names of the options in which two modules of one key contradict each other."""
        if self.options is not None or other.options is not None:
            names = _differing(self.options, other.options)
        else:
            lists = ("imports", "providers", "exports")
            names = tuple(name for name in lists if _comparable(getattr(self, name)) != _comparable(getattr(other, name)))
        return names if self.is_global == other.is_global else (*names, "is_global")

    def shown_options(self, names: Sequence[str]) -> str:
        """Those of these options that are plain values, `prefix='shop', workers=2`, without secrets."""
        given = {**_by_name(self.options), "is_global": self.is_global}
        shown = {name: redact_item(name, given[name]) for name in names if name in given and isinstance(given[name], _PLAIN)}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def _differing(one: object, other: object) -> tuple[str, ...]:
    """What two options contradict each other in, by name where it has one: a field of a dataclass, a keyword that was given."""
    if one == other:
        return ()
    names: tuple[str, ...] = ()
    if is_dataclass(one) and type(one) is type(other):
        names = tuple(each.name for each in fields(one) if each.compare and getattr(one, each.name) != getattr(other, each.name))
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        given, again = cast("Mapping[object, object]", one), cast("Mapping[object, object]", other)
        names = tuple(str(key) for key in {**given, **again} if given.get(key) != again.get(key))
    return names or ("options",)


def _by_name(options: object) -> Mapping[str, object]:
    """The options that may be shown: a field of a dataclass can say that it is not."""
    if is_dataclass(options):
        return {each.name: getattr(options, each.name) for each in fields(options) if each.repr}
    if isinstance(options, Mapping):
        return {str(key): value for key, value in cast("Mapping[object, object]", options).items()}
    return {}


def check_lists(name: str, **lists: object) -> None:
    """Refuse a single module or provider where a list of them belongs."""
    for option, given in lists.items():
        if _is_entry(given) or not isinstance(given, Iterable):
            raise InvalidCallError(name, f"takes a list of {option}: write {option}=[{_shown(given)}]", option)


def _is_entry(given: object) -> bool:
    """Whether it is one of what belongs into a list: some of that can be iterated over, too."""
    return isinstance(given, (str, type, Mapping)) or get_origin(given) is not None


def _shown(given: object) -> str:
    if isinstance(given, DynamicModule):
        return given.display_name
    return "…" if isinstance(given, Mapping) else token_name(getattr(given, "token", given))


def _comparable(entries: Sequence[object]) -> list[object]:
    """With keyed dynamic modules by their keys: those are compared for themselves when the scan comes to them."""
    return [(entry.module, entry.key) if isinstance(entry, DynamicModule) and entry.key is not None else entry for entry in entries]


@explained("@module")
def module(
    *, imports: Sequence[object] = (), providers: Sequence[object] = (), exports: Sequence[object] = ()
) -> Callable[[ModuleT], ModuleT]:
    """Make a class a module.

    Args:
        imports: module classes, `DynamicModule`s and `forward_ref`s; their exports become visible here.
        providers: classes and `provide(...)`; visible in this module only.
        exports: own tokens that importing modules may use; imported modules whose exports are passed on.

    The class itself is created, too, after its providers; its constructor may have dependencies, it may have lifecycle hooks.

    Raises:
        InvalidCallError: one of the three is no list.
    """
    place, namespace = caller_place(1), caller_namespace(1)
    check_lists("@module", imports=imports, providers=providers, exports=exports)

    def decorate(cls: ModuleT) -> ModuleT:
        attach(cls, ModuleMetadata(tuple(imports), tuple(providers), tuple(exports), False, place, namespace))
        return cls

    return decorate


@explained("@global_module")
def global_module(cls: ModuleT) -> ModuleT:
    """Make a module's exports visible in every module, without an import. It still has to be imported somewhere once.

    Stands above `@module`.

    Raises:
        InvalidModule: the class is no module (yet): the two decorators are in the wrong order.
    """
    metadata = own_metadata(cls, ModuleMetadata)
    if metadata is None:
        raise InvalidModule(cls.__name__, "@global_module stands on a class that is no module", "Put it above @module(...).")
    attach(cls, replace(metadata, is_global=True))
    return cls


def is_module(value: object) -> bool:
    """Whether a class is decorated with `@module`, itself and not by inheritance."""
    return own_metadata(value, ModuleMetadata) is not None


def module_metadata(cls: type[Any]) -> ModuleMetadata | None:
    """What `@module` noted on the class itself."""
    return own_metadata(cls, ModuleMetadata)
