"""Random module graphs with several values under one token: the list that each module sees is compared with a model of a few lines."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Annotated

from hypothesis import given
from hypothesis import strategies as st

from toril.di import ApplicationContext, DynamicModule, Inject, ManyToken, build_graph, forward_ref, module, provide

NUMBERS = ManyToken[int]("NUMBERS")
EVERYWHERE = ManyToken[int]("EVERYWHERE", everywhere=True)


class Asks:
    """In each module."""

    def __init__(
        self, numbers: Annotated[tuple[int, ...], Inject(NUMBERS)] = (), everywhere: Annotated[tuple[int, ...], Inject(EVERYWHERE)] = ()
    ) -> None:
        self.numbers, self.everywhere = list(numbers), list(everywhere)


@dataclass
class ModuleSpec:
    """Numbers of the modules that it imports and passes on, what it provides, and whether it exports that."""

    imports: list[int]
    passed_on: list[int]
    provides: list[int]
    exports: bool
    is_global: bool


@st.composite
def graphs(draw: st.DrawFn) -> list[ModuleSpec]:
    count = draw(st.integers(1, 6))
    modules: list[ModuleSpec] = []
    for number in range(count):
        others = [other for other in range(1, count) if other != number]
        imports = draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
        if number + 1 < count and number + 1 not in imports:
            imports.insert(draw(st.integers(0, len(imports))), number + 1)  # so that every module is reached
        provides = [number * 10 + each for each in range(draw(st.integers(0, 3)))]
        passed_on = [each for each in imports if draw(st.booleans())]
        modules.append(ModuleSpec(imports, passed_on, provides, bool(provides) and draw(st.booleans()), draw(st.integers(0, 3)) == 0))
    return modules


def built(modules: list[ModuleSpec]) -> list[DynamicModule]:
    made: list[DynamicModule] = []
    for number, spec in enumerate(modules):
        cls = module()(type(f"Module{number}", (), {}))
        imports = [forward_ref(functools.partial(made.__getitem__, each)) for each in spec.imports]
        passed_on = [forward_ref(functools.partial(made.__getitem__, each)) for each in spec.passed_on]
        values = [provide(token, use_value=value) for value in spec.provides for token in (NUMBERS, EVERYWHERE)]
        exports = [*passed_on, *([NUMBERS] if spec.exports else [])]
        made.append(DynamicModule(cls, imports=imports, providers=[*values, Asks], exports=exports, is_global=spec.is_global))
    return made


def through(modules: list[ModuleSpec], number: int, visited: list[int]) -> list[int]:
    """A module and all whose exports it passes on, depth first."""
    if number in visited:
        return []
    visited.append(number)
    return [number, *(each for passed_on in modules[number].passed_on for each in through(modules, passed_on, visited))]


def order_of(modules: list[ModuleSpec]) -> list[int]:
    """The order in which a scan from the root comes to the modules."""
    found: list[int] = []

    def visit(number: int) -> None:
        if number not in found:
            found.append(number)
            for each in modules[number].imports:
                visit(each)

    visit(0)
    return found


def expected(modules: list[ModuleSpec], number: int) -> list[int]:
    sources = [*modules[number].imports, *(each for each in order_of(modules) if modules[each].is_global and each != number)]
    exporters = [each for source in sources for each in through(modules, source, [])]
    seen = [*modules[number].provides, *(value for each in exporters if modules[each].exports for value in modules[each].provides)]
    return list(dict.fromkeys(seen))


@given(graphs())
def test_each_module_sees_exactly_what_the_model_says(modules: list[ModuleSpec]) -> None:
    made = built(modules)

    async def look() -> None:
        async with ApplicationContext(build_graph(made[0])) as ctx:
            everywhere = [value for each in order_of(modules) for value in modules[each].provides]
            for number, each in enumerate(made):
                asks = ctx.select(each).get(Asks)
                assert asks.numbers == expected(modules, number)
                assert asks.everywhere == everywhere
                assert ctx.select(each).get_all(NUMBERS) == expected(modules, number)
            assert ctx.get_all(EVERYWHERE) == everywhere

    asyncio.run(look())
