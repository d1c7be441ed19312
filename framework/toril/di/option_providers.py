"""Options of a dynamic module that are made when the application starts: what `…_async` methods are written with.

class MailModule:
    @staticmethod
    def for_root_async(*, imports: Sequence[object] = (), **ways: Unpack[OptionWays[MailOptions]]) -> DynamicModule:
        return DynamicModule(
            MailModule, key="for_root", imports=imports, options=ways,
            providers=[*option_providers(MAIL_OPTIONS, **ways), Mailer], exports=[Mailer],
        )
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, cast

from typing_extensions import TypedDict, TypeVar, Unpack

from toril.calls import no_such_option
from toril.di.errors import InvalidProvider
from toril.di.places import caller_place
from toril.di.providers import FactoryProvider, Provider, class_provider, provide
from toril.di.tokens import Token, token_name

OptionsT = TypeVar("OptionsT", default=Any)
OptionsT_co = TypeVar("OptionsT_co", covariant=True, default=Any)

_WAYS = ("use_factory", "use_class", "use_existing")


class OptionsFactory(Protocol[OptionsT_co]):
    """A class that makes options."""

    def create_options(self) -> OptionsT_co | Awaitable[OptionsT_co]:
        """The options; may be `async def`."""
        ...


class OptionWays(TypedDict, Generic[OptionsT], total=False):
    """Where the options come from: exactly one of the three `use_…`."""

    use_factory: Callable[..., OptionsT | Awaitable[OptionsT]]
    """A plain or a coroutine function."""
    inject: Sequence[object] | None
    """What `use_factory` is called with; by default what its annotations ask for."""
    use_class: type[OptionsFactory[OptionsT]]
    """A class that the module makes for itself, with its dependencies, and whose `create_options` is called."""
    use_existing: object
    """A token of an imported module, whose object has `create_options`."""


def option_providers(token: Token[OptionsT], **ways: Unpack[OptionWays[OptionsT]]) -> list[Provider]:
    """The providers of a dynamic module whose options are made at start; the options then stand under `token`.

    Raises:
        InvalidProvider: none or several of the three ways, or `inject` beside another than `use_factory`.
        InvalidCallError: something else, with what is near.
    """
    known = tuple(OptionWays.__annotations__)
    if unknown := [way for way in ways if way not in known]:
        raise no_such_option(f"what makes {token_name(token)}", unknown[0], known, {})
    given = [way for way in _WAYS if way in ways]
    place = caller_place(2)  # whoever called the method that returns the module
    if len(given) != 1:
        made = " and ".join(given) or "none of them"
        raise InvalidProvider(token_name(token), "", f"it is made with {made}", f"Give exactly one of {', '.join(_WAYS)}.", str(place))
    inject = ways.get("inject")
    if "use_factory" in ways:
        order = None if inject is None else tuple(inject)
        checked = provide(token, use_factory=cast("Callable[..., Any]", ways["use_factory"]), inject=order)
        return [replace(checked, place=place)]
    if inject is not None:
        reason = f"`inject` means nothing beside {given[0]}"
        raise InvalidProvider(token_name(token), "", reason, "It names the arguments of a `use_factory`.", str(place))
    if "use_class" in ways:
        cls: type = ways["use_class"]
        return [class_provider(cls), FactoryProvider(token=token, factory=_create, inject=(cls,), place=place)]
    return [FactoryProvider(token=token, factory=_create, inject=(ways.get("use_existing"),), place=place)]


async def _create(factory: OptionsFactory[Any]) -> Any:  # noqa: ANN401 -- whatever options are
    made = factory.create_options()
    # By how it is written, never by what it returns: options may be something that can be awaited.
    return await made if inspect.iscoroutinefunction(factory.create_options) else made
