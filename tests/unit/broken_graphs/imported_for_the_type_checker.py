"""A name that exists for type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toril import module

if TYPE_CHECKING:
    from decimal import Decimal


class Prices:
    def __init__(self, rate: Decimal) -> None:
        self.rate = rate


@module(providers=[Prices])
class AppModule: ...
