"""Modules with options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from tests.unit.di.building import app, errors_of, only_error
from toril.di import ApplicationContext, ConflictingModules, DynamicModule, Inject, Token, build_graph, caller_place, module, provide

LIMIT = Token[int]("LIMIT")


@module()
class LimitModule:
    @staticmethod
    def register(limit: int, key: str | None = "limit") -> DynamicModule:
        return DynamicModule(LimitModule, providers=[provide(LIMIT, use_value=limit)], exports=[LIMIT], key=key, place=caller_place(1))


class UsesLimit:
    def __init__(self, limit: Annotated[int, Inject(LIMIT)]) -> None:
        self.limit = limit


async def test_row_14_one_key_means_one_module() -> None:
    @module(imports=[LimitModule.register(3)], providers=[UsesLimit])
    class First: ...

    graph = build_graph(app(imports=[First, LimitModule.register(3)]))
    assert [node.name for node in graph.nodes] == ["AppModule", "First", "LimitModule(limit)"]
    async with ApplicationContext(graph) as ctx:
        assert ctx.get(UsesLimit).limit == 3


def test_row_14_one_key_with_other_options_is_an_error_that_names_both() -> None:
    @module(imports=[LimitModule.register(3)])
    class First: ...

    error = only_error(app(imports=[First, LimitModule.register(4)]), ConflictingModules)
    assert (error.module, error.key, error.differing) == ("LimitModule", "'limit'", ("providers",))
    assert error.paths == ("AppModule -> First -> LimitModule(limit)", "AppModule -> LimitModule(limit)")
    assert all("test_dynamic_modules.py:" in place for place in (error.first, error.second))
    assert error.first != error.second


def test_row_14_without_a_key_each_object_is_a_module_of_its_own() -> None:
    one, two = LimitModule.register(3, key=None), LimitModule.register(3, key=None)
    graph = build_graph(app(imports=[one, two, one]))
    assert [node.dynamic for node in graph.nodes[1:]] == [one, two]


def test_modules_of_different_keys_live_side_by_side() -> None:
    graph = build_graph(app(imports=[LimitModule.register(3, "a"), LimitModule.register(4, "b")]))
    assert [node.name for node in graph.nodes] == ["AppModule", "LimitModule(a)", "LimitModule(b)"]


def test_explicit_options_are_compared_instead_of_the_lists() -> None:
    def configured(options: dict[str, int]) -> DynamicModule:
        made = provide(LIMIT, use_factory=lambda: options["limit"])  # a new lambda each time: never equal
        return DynamicModule(LimitModule, providers=[made], key="k", options=options)

    build_graph(app(imports=[configured({"limit": 1}), configured({"limit": 1})]))
    error = only_error(app(imports=[configured({"limit": 1}), configured({"limit": 2})]), ConflictingModules)
    assert error.differing == ("limit",)


def test_values_that_differ_are_shown_if_they_are_short_and_no_secrets() -> None:
    @dataclass(frozen=True)
    class Options:
        url: str
        port: int
        pin: str
        hidden: str = field(repr=False)
        hosts: tuple[str, ...] = ()

    def configured(options: object) -> DynamicModule:
        return DynamicModule(LimitModule, key="k", options=options)

    one, two = Options("redis://:s3cret@a", 1, "1234", "x", ("a",)), Options("redis://:s3cret@b", 2, "5678", "y", ("b",))
    error = only_error(app(imports=[configured(one), configured(two)]), ConflictingModules)
    assert error.differing == ("url", "port", "pin", "hidden", "hosts")
    assert error.values == ("url='redis://:***@a', port=1, pin='***'", "url='redis://:***@b', port=2, pin='***'")
    error = only_error(app(imports=[configured({"a": 1, "b": None}), configured({"b": 2})]), ConflictingModules)
    assert error.values == ("a=1, b=None", "b=2")


def test_imports_with_keys_are_compared_by_their_keys() -> None:
    def importing() -> DynamicModule:
        return DynamicModule(Importing, imports=[LimitModule.register(3)], key="k")

    @module()
    class Importing: ...

    build_graph(app(imports=[importing(), importing()]))


def test_a_key_that_can_not_be_compared_is_refused_where_it_is_written() -> None:
    key: Any = []
    with pytest.raises(TypeError, match="unhashable"):
        DynamicModule(LimitModule, key=key)


def test_global_by_option_is_part_of_what_must_agree() -> None:
    same = {"key": "k", "options": 1}
    error = only_error(
        app(imports=[DynamicModule(LimitModule, **same), DynamicModule(LimitModule, is_global=True, **same)]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ConflictingModules,
    )
    assert error.differing == ("is_global",)


async def test_a_dynamic_module_can_be_global() -> None:
    everywhere = DynamicModule(LimitModule, providers=[provide(LIMIT, use_value=9)], exports=[LIMIT], is_global=True)

    @module(providers=[UsesLimit])
    class Deep: ...

    async with ApplicationContext(build_graph(app(imports=[Deep, everywhere]))) as ctx:
        assert ctx.get(UsesLimit).limit == 9


async def test_a_dynamic_modules_lists_come_on_top_of_the_classs_own() -> None:
    @module(providers=[provide("a", use_value=1), provide("b", use_value=2)], exports=["a", "b"])
    class Base: ...

    dynamic = DynamicModule(Base, providers=[provide("b", use_value=20), provide("c", use_value=30)], exports=["c"])
    async with ApplicationContext(build_graph(app(imports=[dynamic]))) as ctx:
        assert [ctx.select(dynamic).get(name) for name in "abc"] == [1, 20, 30]


def test_a_module_whose_own_import_is_broken_is_reported_with_its_path() -> None:
    @module(imports=[None])
    class Broken: ...

    (error,) = errors_of(app(imports=[DynamicModule(Broken, name="Broken('x')")]))
    assert "AppModule -> Broken('x')" in str(error)
