"""Random operations on the real BullMQ and on Toril leave the same keys, the same events and the same answers, step by step.

Hypothesis makes them up (`operations.py`); clock and chance are injected on both sides. A run is the same each time; `TORIL_SEED=7`
tries other operations, and `make interop-long MINUTES=20` goes on with one seed after the other. A failure tells its seed and the
shortest run of steps that still shows the difference.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.compared import Compared
from tests.interop.differential import World
from tests.interop.machine import Run, both_sides
from tests.interop.operations import Operations

SEED: Final = int(os.environ.get("TORIL_SEED", "0"))
MINUTES: Final = float(os.environ.get("TORIL_MINUTES", "0"))
"""Go on for so long; 0: one round."""
SETTINGS: Final = settings(
    max_examples=100,
    stateful_step_count=40,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=False,
)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("lane", [0, 1])
def test_random_operations_leave_the_same_on_both_sides(
    lane: int, node_is_there: None, toril_server_url: str, toril_prefix: str, compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_at = time.monotonic() + 60 * MINUTES
    number = SEED + lane
    with both_sides(toril_server_url, toril_prefix) as (world, run):
        while True:
            _compare_some(world, run, number)
            if MINUTES:
                with capsys.disabled():
                    sys.stdout.write(f"seed {number}: {world.told()}\n")
            if time.monotonic() > ends_at:
                break
            number += 2
        compared.steps += world.steps
        compared.operations += world.operations


def _compare_some(world: World, run: Run, number: int) -> None:
    class Machine(Operations):
        def __init__(self) -> None:
            super().__init__(world, run)

    try:
        run_state_machine_as_test(seed(number)(Machine), settings=SETTINGS)
    except BaseException as error:
        error.add_note(f"try it again with TORIL_SEED={number}")
        raise
