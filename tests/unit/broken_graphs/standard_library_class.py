"""A parameter whose class is of the standard library, and so says nothing about which value is wanted."""

from __future__ import annotations

from decimal import Decimal

from toril import module


class Prices:
    def __init__(self, rate: Decimal) -> None:
        self.rate = rate


@module(providers=[Prices])
class AppModule: ...
