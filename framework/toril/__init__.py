"""Toril: asyncio workers with modules and dependency injection, on BullMQ's Redis protocol.

The public names stand in `toril.names`, and are loaded when the first of them is used: the command `toril` imports this package,
too, and `toril --help` shall not wait for all of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toril.names import *  # noqa: F403 -- all of them, and the list itself
    from toril.names import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module 'toril' has no attribute {name!r}")
        names = importlib.import_module("toril.names")  # `from toril import names` would ask here for it
        globals().update({each: getattr(names, each) for each in names.__all__}, __all__=names.__all__)
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module 'toril' has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return __getattr__("__all__")
