"""Three constructors that need each other."""

from __future__ import annotations

from toril import module


class Orders:
    def __init__(self, stock: Stock) -> None:
        self.stock = stock


class Stock:
    def __init__(self, suppliers: Suppliers) -> None:
        self.suppliers = suppliers


class Suppliers:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    def open_orders(self) -> list[str]:
        return [str(self.orders)]


@module(providers=[Orders, Stock, Suppliers])
class AppModule: ...
