"""Texts about the graph: what is near to a misspelt name, and how what is missing could be had."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, get_args, get_origin

from toril.di.bindings import Binding
from toril.di.module import is_module
from toril.di.scanner import Node
from toril.di.tokens import HintingToken, is_builtin_type, is_value_type, token_name
from toril.spelling import near

Adviser = Callable[[object, Collection[object]], str | None]
"""Gets a token that nothing provides and all tokens that the graph has; returns a sentence that helps, or None."""

_A_FEW: Final = 3


class Hints:
    """Says what the reader of an error about a missing token can do."""

    def __init__(
        self,
        bindings_by_token: Mapping[object, Sequence[Binding]],
        is_exported: Callable[[Binding], bool],
        advisers: Sequence[Adviser] = (),
    ) -> None:
        self._by_token = bindings_by_token
        self._is_exported = is_exported
        self._advisers = advisers

    def for_missing(self, token: object, node: Node, asking: object = None, parameter: str = "") -> tuple[str, ...]:
        """Sentences about a token that `node` can't see, the most likely remedy first.

        Args:
            asking: the token of who asks, which can't be what was meant.
            parameter: how it is asked for, `orders: Repository[Order]`.
        """
        known = self._by_token.keys()
        found: list[str] = []
        if isinstance(token, HintingToken) and not isinstance(token, type):
            found.append(token.unresolved_hint(known) or "")
        found.extend(adviser(token, known) or "" for adviser in self._advisers)
        found.extend(self._elsewhere(token, node))
        if is_module(token):
            found.append(f"{token_name(token)} is a module; inject one of its exports, or ModuleRef.")
        if is_builtin_type(token):
            found.append(self._value(token, node))
        else:
            found.extend(self._relatives(token, node, parameter))
        return tuple(hint for hint in found if hint) or (*self._close(token, asking), self._general(token, node))

    def _elsewhere(self, token: object, node: Node) -> Iterable[str]:
        name = token_name(token)
        for binding in self._by_token.get(token, ()):
            other = binding.node
            if binding.is_module_class or other is node:
                continue
            if self._is_exported(binding):
                yield f"{name} is exported by {other.name}: add {other.name} to the imports of {node.name}."
            elif other in node.imports:
                yield f"{name} is provided by {other.name}, which does not export it: add it to the exports of {other.name}."
            else:
                yield (
                    f"{name} is provided by {other.name}, which does not export it: add it to the exports of {other.name}, "
                    f"and {other.name} to the imports of {node.name}."
                )

    def _value(self, token: object, node: Node) -> str:
        """With the tokens whose values are of this type, `Token[str]("SENDER")`, where there are a few."""
        name = token_name(token)
        kind = "is a builtin type, which is no token by itself" if is_builtin_type(token) else "alone doesn't say which value is meant"
        typed = [token_name(other) for other in self._by_token if get_args(getattr(other, "__orig_class__", None)) == (token,)]
        ways = [f"Annotated[{name}, Inject({each})]" for each in typed] if len(typed) <= _A_FEW else []
        way = " or ".join(ways) or (
            f'Annotated[{name}, Inject("SOME_TOKEN")], and add provide("SOME_TOKEN", use_value=...) to the providers of {node.name}'
        )
        return f"{name} {kind}: give the parameter a default or use {way}."

    def _relatives(self, token: object, node: Node, parameter: str) -> Iterable[str]:
        name = token_name(token)
        for other in self._by_token:
            if other == token:
                continue
            other_name = token_name(other)
            if other_name == name:
                yield self._same_name(token, other)
            elif isinstance(token, type) and _is_subclass(other, token):
                yield f"{other_name}, a subclass of it, is provided: add provide({name}, use_existing={other_name})."
            elif get_origin(other) is not None and get_origin(other) is (get_origin(token) or token):
                change = f"change the argument to `{parameter.partition(': ')[0]}: {other_name}`" if parameter else f"ask for {other_name}"
                yield f"{other_name} is provided, which is another token than {name}: {_add(token, node)}, or {change}."

    def _close(self, token: object, asking: object) -> tuple[str, ...]:
        close = near(token_name(token), (token_name(other) for other in self._by_token if other != asking))
        return (f"did you mean {' or '.join(close)}?",) if close else ()

    def _same_name(self, token: object, other: object) -> str:
        name = token_name(token)
        if isinstance(token, type) and isinstance(other, type):
            return (
                f"another class named {name} is provided: {_full_name(other)}, while {_full_name(token)} is asked for. "
                "Is the same file imported under two names?"
            )
        return f"another token named {name} is provided; tokens are compared by identity, so import that one instead of making a second."

    def _general(self, token: object, node: Node) -> str:
        if is_value_type(token):
            return self._value(token, node)
        name = token_name(token)
        return f"no module provides {name}: {_add(token, node)}, or to those of a module that {node.name} imports and that exports {name}."


def _add(token: object, node: Node) -> str:
    """How a module comes to provide a token."""
    name = token_name(token)
    cls = get_origin(token) or token
    if not isinstance(cls, type):
        entry = f"provide({name}, use_value=...)"
    elif inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        entry = f"provide({name}, use_class=...)"
    else:
        entry = name
    return f"add {entry} to the providers of {node.name}"


def _is_subclass(other: object, token: type) -> bool:
    try:
        return isinstance(other, type) and token in other.__mro__[1:]
    except TypeError:
        return False


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
