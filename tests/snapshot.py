"""Everything that the server holds under one prefix, in a form that can be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

Keys: TypeAlias = dict[str, dict[str, Any]]
"""Each key with `type`, `value` (but of streams) and, if it has one, `ttl` in ms. The prefix is written as `bull`."""

Events: TypeAlias = dict[str, list[list[list[str]]]]
"""For each stream its entries, each a list of [field, value]."""

_READ_ALL: Final = """#!lua flags=no-writes,allow-cross-slot-keys
local names, rows = {}, {}
for _, pattern in ipairs(ARGV) do
  for _, key in ipairs(redis.call('KEYS', pattern)) do names[#names + 1] = key end
end
table.sort(names)
for i, key in ipairs(names) do
  local kind = redis.call('TYPE', key).ok
  local value = {}
  if kind == 'string' then value = { redis.call('GET', key) }
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'stream' then
    for n, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do value[n] = entry[2] end
  end
  rows[i] = { key, kind, redis.call('PTTL', key), value }
end
return rows
"""


async def read_all(server: Server, prefix: str) -> tuple[Keys, Events]:
    """All keys of BullMQ and of ours under the prefix, at one instant; of the streams, all entries."""
    connection = server.commands_of(QueueKeys(prefix, "q"))
    rows = await connection.call("EVAL", _READ_ALL, 0, *_patterns(prefix))
    keys: Keys = {}
    events: Events = {}

    def texts(values: Sequence[bytes]) -> list[str]:
        return [value.decode(errors="backslashreplace").replace(f"{prefix}:", "bull:") for value in values]

    for raw_name, kind, ttl, value in rows:
        (name,) = texts([raw_name])
        if kind == b"stream":
            events[name] = [_pairs(texts(flat)) for flat in value]
        else:
            keys[name] = {"type": kind.decode(), "value": _value(kind, texts(value))} | ({"ttl": ttl} if ttl >= 0 else {})
    return keys, events


async def delete_all(server: Server, prefix: str) -> None:
    """Delete every key under the prefix."""
    names = [name for pattern in _patterns(prefix) for name in await _scan(server, pattern)]
    if names:
        await server.commands.call("UNLINK", *names)


def show(entry: list[list[str]]) -> str:
    """An event in one line, without the names of its first two fields: `waiting 7 prev=active`."""
    return " ".join(value if name in {"event", "jobId"} else f"{name}={value}" for name, value in entry)


def _patterns(prefix: str) -> tuple[str, str]:
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    return f"{literal}:*", f"toril:{literal}:*"


async def _scan(server: Server, pattern: str) -> list[bytes]:
    names: set[bytes] = set()
    cursor = b"0"
    while True:
        cursor, found = await server.commands.call("SCAN", cursor, "MATCH", pattern, "COUNT", 5_000)
        names.update(found)
        if cursor == b"0":
            return sorted(names)


def _value(kind: bytes, flat: list[str]) -> Any:  # noqa: ANN401 -- as the dumps have it
    match kind:
        case b"string":
            return flat[0]
        case b"set":
            return sorted(flat)
        case b"zset":
            return _pairs(flat)
        case b"hash":
            return dict(zip(flat[::2], flat[1::2], strict=True))
        case _:
            return flat


def _pairs(flat: list[str]) -> list[list[str]]:
    return [list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)]
