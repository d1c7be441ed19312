"""The module that has what is asked for is imported, but somewhere else."""

from __future__ import annotations

from toril import module


class Ledger: ...


@module(providers=[Ledger], exports=[Ledger])
class LedgerModule: ...


class Checkout:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger


@module(providers=[Checkout])
class ShopModule: ...


@module(imports=[LedgerModule, ShopModule])
class AppModule: ...
