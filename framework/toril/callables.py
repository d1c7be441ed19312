"""What can be told about a function that users hand over: whether it is asynchronous, and where it is written."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def is_async(call: Callable[..., Any]) -> bool:
    """Whether calling it gives an awaitable; anything else runs in a thread."""
    function: Any = call
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 -- async __call__


def place_of(call: Callable[..., Any]) -> str:
    """`module.Class.method (file.py:12)`."""
    function = inspect.unwrap(getattr(call, "__func__", call))
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})" if code else name
