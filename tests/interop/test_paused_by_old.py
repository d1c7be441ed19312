"""A queue that BullMQ 5 has paused, with what waits in its list `paused`, is the same to the real BullMQ 6 and to Toril.

BullMQ 5 itself adds and pauses, in both key spaces; then both sides go through the same operations, as in `test_differential.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from tests.compared import Compared
from tests.interop.differential import T0
from tests.interop.machine import both_sides
from tests.interop.spelling import Json

FEW: Final = ["1", "2", "3", "mine", "first", "high", "late"]

Step = tuple[str, dict[str, Any]]

RESUME: Final[Step] = ("resume", {})
TURN: Final[Step] = (
    "turn",
    {"worker": "plain", "endings": [], "claims": [{"hold": f"h{n}", "token": "t" if n == 1 else f"t:{n}"} for n in range(1, 7)]},
)

WAYS: Final[dict[str, Sequence[Step]]] = {
    "nothing runs while it is paused": [TURN],
    "resumed": [RESUME, TURN],
    "added to while it is paused, then resumed": [("add", {"name": "n", "data": {}, "opts": {"jobId": "new"}}), RESUME, TURN],
    "paused once more, then resumed": [("pause", {}), RESUME, TURN],
    "read": [("read", {"jobs": FEW, "priorities": [0, 1]}), *(("look", {"job": job, "deduplications": []}) for job in FEW)],
    "removed one by one": [*(("remove", {"job": job}) for job in FEW), RESUME],
    "drained": [("drain", {"delayed": False}), RESUME],
    "drained of all": [("drain", {"delayed": True}), RESUME],
    "cleaned": [("clean", {"grace": 0, "limit": 0, "state": "wait"}), RESUME, TURN],
    "obliterated": [("obliterate", {"force": False})],
    "promoted into": [("promote", {"job": "late"}), ("promote_jobs", {}), RESUME, TURN],
    "with other priorities": [("change_priority", {"job": job, "priority": 2, "lifo": False}) for job in ("1", "high")],
    "looked through for orphans": [("remove_orphans", {"linked": [], "owners": []}), RESUME],
    "swept": [("sweep", {}), RESUME],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_queue_that_bullmq_5_has_paused_goes_on_alike(
    way: str, node_is_there: None, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    with both_sides(toril_server_url, toril_prefix) as (world, run):

        def step(operation: str, at_ms: int, **args: Json) -> None:
            run(world.step(operation, T0 + at_ms, queue="q", **args))

        run(world.reset())
        for opts in ({}, {}, {}, {"jobId": "mine"}, {"jobId": "high", "priority": 1}, {"jobId": "late", "delay": 60_000}):
            step("add", 0, name="n", data={}, opts=opts, by_old=True)
        step("pause", 1, by_old=True)
        step("add", 2, name="n", data={}, opts={"jobId": "first", "lifo": True}, by_old=True)
        assert world.keys["bull:q:paused"]["value"] == ["mine", "3", "2", "1", "first"]
        for place, (operation, args) in enumerate(WAYS[way]):
            step(operation, 10 + place, **args)
        compared.steps += world.steps
        compared.operations += world.operations
