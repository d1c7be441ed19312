"""A payload that is kept for when its job has ended (`keep_last_if_active`), and what others do to the same deduplication id meanwhile.

Each step is done by both libraries, and leaves the same keys, the same events and the same answer.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.compared import Compared
from tests.interop.differential import T0
from tests.interop.machine import Machine, both_sides
from tests.interop.operations import Operations
from tests.interop.spelling import HOUR_MS, Json

KEEP = {"keepLastIfActive": True}
EXTEND = {"ttl": HOUR_MS, "extend": True}


@pytest.fixture
def machine(node_is_there: None, toril_server_url: str, toril_prefix: str, compared: Compared) -> Generator[Machine]:
    with both_sides(toril_server_url, toril_prefix) as (world, run):
        yield Operations(world, run)
        compared.steps += world.steps
        compared.operations += world.operations


def add(machine: Machine, **form: Json) -> str:
    told = machine.step("add", queue="q", name="n", data={}, opts={"deduplication": {"id": "d", **form}})
    return str(told["value"])


def begin(machine: Machine) -> None:
    """One job runs, and the payload of another one is kept."""
    assert add(machine, **KEEP) == "1"
    machine.turn("q", "plain", [], 1)
    assert add(machine, **KEEP) == "1"
    assert machine.world.keys["bull:q:dn:d"]["value"]["jid"] == "2"


def state(machine: Machine, job: str) -> str:
    return str(machine.step("look", queue="q", job=job, deduplications=["d"])["value"]["state"])


@pytest.mark.parametrize("how", ["complete", "fail", "give up"])
def test_an_end_that_another_job_has_given_to_the_id_goes_with_the_next_one(machine: Machine, how: str) -> None:
    begin(machine)
    assert add(machine, **EXTEND) == "1"
    assert "ttl" in machine.world.keys["bull:q:de:d"]  # and the payload is kept all the same
    machine.end(0, "", how=how, value=1, reason="no")
    owner = machine.world.keys["bull:q:de:d"]
    assert (owner["value"], "ttl" in owner, "bull:q:dn:d" in machine.world.keys) == ("2", False, False)
    assert state(machine, "2") == "waiting"


def test_a_job_that_came_when_the_time_was_over_does_not_lose_the_payload(machine: Machine) -> None:
    begin(machine)
    add(machine, **EXTEND)
    machine.run(machine.world.raw("DEL", key="q:de:d"))  # its time is over
    assert add(machine) == "4"
    machine.end(0, "", how="complete", value=1)
    assert machine.ids("q", ["wait"]) == ["2", "4"]
    assert machine.world.keys["bull:q:de:d"]["value"] == "2"


def test_a_payload_goes_with_the_job_that_it_waited_for(machine: Machine) -> None:
    begin(machine)
    add(machine, **EXTEND)
    machine.run(machine.world.raw("DEL", key="q:1:lock"))
    machine.step("remove", queue="q", job="1")
    assert not {"bull:q:de:d", "bull:q:dn:d"} & machine.world.keys.keys()
    assert add(machine, **KEEP) == "4"


def test_a_payload_outlives_that_its_job_is_put_off(machine: Machine) -> None:
    begin(machine)
    add(machine, **EXTEND)
    machine.end(0, "", how="put off", ms=1_000)
    assert add(machine, **KEEP) == "1"
    assert machine.world.keys["bull:q:dn:d"]["value"]["jid"] == "2"
    machine.now = T0 + 1_000
    machine.turn("q", "plain", [], 1)
    machine.end(0, "", how="complete", value=1)
    assert state(machine, "2") == "waiting"
