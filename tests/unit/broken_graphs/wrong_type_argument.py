"""A generic class is asked for with another argument than it is provided with."""

from __future__ import annotations

from typing import Generic, TypeVar

from toril import module

RowT = TypeVar("RowT")


class User: ...


class Order: ...


class Repository(Generic[RowT]): ...


class OrderService:
    def __init__(self, orders: Repository[Order]) -> None:
        self.orders = orders


@module(providers=[Repository[User], OrderService])
class AppModule: ...
