"""Whether one key space is what another one is, by the rules of the wire specification, §10:

    opts, parent, data, returnvalue, progress   as parsed JSON
    stacktrace                                  how many stacks
    ttl                                         within a tolerance
    marker                                      scores without their fraction
    sets                                        without order
    meta.version, length of the stream          not at all
    everything else                             byte for byte, and no key more or less

Both may be dumps of the released Node library or what stands in a server now (`tests.snapshot`). "Node" is the one that is right.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tests.snapshot import Events, Keys, show

_JSON_FIELDS: Final = frozenset({"opts", "parent", "data", "returnvalue", "progress", "pd"})


def key_differences(ours: Keys, node: Keys, ttl_tolerance_ms: int) -> list[str]:
    """What differs, a line for each."""
    wanted = {key: value for key, value in node.items() if value["type"] != "stream"}
    problems = [f"{key}: missing, Node has {wanted[key]}" for key in wanted.keys() - ours.keys()]
    problems += [f"{key}: not there with Node: {ours[key]}" for key in ours.keys() - wanted.keys()]
    for key in wanted.keys() & ours.keys():
        if ours[key] != wanted[key]:
            problems += _compare(key, wanted[key], ours[key], ttl_tolerance_ms)
    return sorted(problems)


def event_differences(ours: Events, node: Events) -> list[str]:
    """What differs in the streams; those without an entry don't count."""
    ours, node = ({key: entries for key, entries in events.items() if entries} for events in (ours, node))
    return [] if ours == node else [f"events:\n    ours {_show(ours)}\n    Node {_show(node)}"]


def _compare(key: str, wanted: dict[str, Any], found: dict[str, Any], ttl_tolerance_ms: int) -> list[str]:
    problems: list[str] = []
    if ("ttl" in wanted) != ("ttl" in found) or abs(wanted.get("ttl", 0) - found.get("ttl", 0)) > ttl_tolerance_ms:
        problems.append(f"{key}: ttl {found.get('ttl')}, Node has {wanted.get('ttl')}")
    if wanted["type"] != found["type"]:
        return [*problems, f"{key}: {found['type']}, Node has {wanted['type']}"]
    ours, theirs = found["value"], wanted["value"]
    if wanted["type"] == "hash":
        ours, theirs = _comparable(key, ours), _comparable(key, theirs)
        return problems + [
            f"{key}.{name}: {ours.get(name)!r}, Node has {theirs.get(name)!r}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
    if key.endswith(":marker"):
        ours, theirs = ([[member, int(float(score))] for member, score in value] for value in (ours, theirs))
    elif wanted["type"] == "set":
        theirs = sorted(theirs)
    return problems if ours == theirs else [*problems, f"{key}: {ours}, Node has {theirs}"]


def _comparable(key: str, value: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, text in value.items():
        if name in _JSON_FIELDS:
            result[name] = json.loads(text)
        elif name == "stacktrace":
            result[name] = len(json.loads(text))
        elif not (name == "version" and key.endswith(":meta")):
            result[name] = text
    return result


def _show(events: Events) -> str:
    return " | ".join(
        f"{key.removeprefix('bull:').removesuffix(':events')} {show(entry)}" for key in sorted(events) for entry in events[key]
    )
