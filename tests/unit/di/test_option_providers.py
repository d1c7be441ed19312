"""Dynamic modules of third parties, with options that are made at start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from typing_extensions import Unpack

from tests.unit.di.building import app, context_of, only_error
from toril.di import (
    ConflictingModules,
    DynamicModule,
    Inject,
    InvalidProvider,
    OptionWays,
    Token,
    UnresolvedDependency,
    caller_place,
    module,
    option_providers,
    provide,
)

URL = Token[str]("URL")
MAIL_OPTIONS = Token[str]("MAIL_OPTIONS")


class Mailer:
    def __init__(self, url: Annotated[str, Inject(MAIL_OPTIONS)]) -> None:
        self.url = url


@module()
class MailModule:
    """As a third party would write it."""

    @staticmethod
    def for_root_async(*, imports: Sequence[object] = (), **ways: Unpack[OptionWays[str]]) -> DynamicModule:
        providers = [*option_providers(MAIL_OPTIONS, **ways), Mailer]
        return DynamicModule(MailModule, key="for_root", imports=imports, providers=providers, exports=[Mailer], options=ways)


@module(providers=[provide(URL, use_value="smtp://here")], exports=[URL])
class UrlModule: ...


class Options:
    def __init__(self, url: Annotated[str, Inject(URL)]) -> None:
        self.url = url

    async def create_options(self) -> str:
        return f"{self.url}/async"


class PlainOptions:
    def create_options(self) -> str:
        return "plain"


@module(providers=[PlainOptions], exports=[PlainOptions])
class OptionsModule: ...


async def from_url(url: str) -> str:
    return f"{url}/factory"


@pytest.mark.parametrize(
    ("imported", "url"),
    [
        (MailModule.for_root_async(use_factory=from_url, inject=[URL], imports=[UrlModule]), "smtp://here/factory"),
        (MailModule.for_root_async(use_class=Options, imports=[UrlModule]), "smtp://here/async"),
        (MailModule.for_root_async(use_existing=PlainOptions, imports=[OptionsModule]), "plain"),
    ],
)
async def test_the_three_ways_to_make_options(imported: DynamicModule, url: str) -> None:
    async with context_of(imports=[imported]) as ctx:
        assert ctx.get(Mailer).url == url


async def test_an_options_object_that_can_be_awaited_is_not_awaited() -> None:
    class Awaitable:
        def __await__(self) -> Any:  # noqa: ANN401  # never called
            raise AssertionError("somebody awaited it")

    class Makes:
        def create_options(self) -> Any:  # noqa: ANN401  # as the test needs it
            return Awaitable()

    async with context_of(imports=[MailModule.for_root_async(use_class=Makes)]) as ctx:
        assert isinstance(ctx.get(Mailer).url, Awaitable)


@pytest.mark.parametrize(
    ("ways", "reason"),
    [
        ({}, "it is made with none of them"),
        ({"use_class": Options, "use_existing": Options}, "it is made with use_class and use_existing"),
        ({"use_class": Options, "inject": [URL]}, "`inject` means nothing beside use_class"),
    ],
)
def test_not_exactly_one_way_is_refused_where_the_module_is_used(ways: dict[str, Any], reason: str) -> None:
    here = caller_place(0)
    with pytest.raises(InvalidProvider) as caught:
        MailModule.for_root_async(**ways)
    assert caught.value.reason == reason
    fix = "It names the arguments of a `use_factory`." if "inject" in ways else "Give exactly one of use_factory, use_class, use_existing."
    assert caught.value.hint == fix
    assert caught.value.place == f"{str(here).rpartition(':')[0]}:{here.line + 2}"


def test_a_second_one_with_other_options_is_an_error_and_with_the_same_is_not() -> None:
    @module(imports=[MailModule.for_root_async(use_class=PlainOptions)])
    class Again: ...

    first = MailModule.for_root_async(use_class=PlainOptions)
    other = MailModule.for_root_async(use_existing=PlainOptions, imports=[OptionsModule])
    error = only_error(app(imports=[Again, other]), ConflictingModules)
    assert error.differing == ("use_class", "use_existing")
    context_of(imports=[Again, first])  # no error


def test_what_a_factory_misses_is_reported_at_the_import() -> None:
    line = caller_place(0).line + 1
    imported = MailModule.for_root_async(use_factory=from_url, inject=[URL])
    error = only_error(app(imports=[imported]), UnresolvedDependency)
    assert error.place.endswith(f"test_option_providers.py:{line}")
