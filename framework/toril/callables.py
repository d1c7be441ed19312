"""What can be told about a function that users hand over: whether it is asynchronous, and where it is written."""

from __future__ import annotations

import asyncio
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


async def call_off_loop(function: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401 -- whatever it takes
    """Call a user's function where it blocks nobody: a coroutine function here, a plain one in a thread. What that returns is awaited
    here if it can be, as a lambda's may that calls a coroutine function."""
    returned: object = function(*args) if is_async(function) else await asyncio.to_thread(function, *args)
    if inspect.isawaitable(returned):
        await returned


def place_of(call: Callable[..., Any]) -> str:
    """`module.Class.method (file.py:12)`."""
    function = inspect.unwrap(getattr(call, "__func__", call))
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
    line = line_of(call)
    return f"{name} ({line})" if line else name


def line_of(call: Callable[..., Any]) -> str:
    """`file.py:12`; nothing for what isn't written in Python."""
    code = getattr(inspect.unwrap(getattr(call, "__func__", call)), "__code__", None)
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}" if code else ""
