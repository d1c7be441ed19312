"""Two modules configure a third one, each in its own way."""

from __future__ import annotations

from toril import QueueModule, module


@module(imports=[QueueModule.for_root(prefix="shop"), QueueModule.register_queue("orders")])
class OrdersModule: ...


@module(imports=[OrdersModule, QueueModule.for_root(prefix="bull")])
class AppModule: ...
