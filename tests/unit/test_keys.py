"""Key names."""

from __future__ import annotations

import base64

import pytest

from toril.errors import InvalidOptionError
from toril.wire.keys import RESERVED_JOB_IDS, QueueKeys


def test_every_key_of_a_queue_lies_under_its_base() -> None:
    keys = QueueKeys("bull", "my queue")
    assert keys.base == "bull:my queue:"
    assert keys.qualified_name == "bull:my queue"
    assert (keys.events, keys.marker, keys.meta) == ("bull:my queue:events", "bull:my queue:marker", "bull:my queue:meta")
    assert (keys.stalled_check, keys.state("waiting-children")) == ("bull:my queue:stalled-check", "bull:my queue:waiting-children")
    assert (keys.job("a:b:c"), keys.lock("7"), keys.logs("7")) == ("bull:my queue:a:b:c", "bull:my queue:7:lock", "bull:my queue:7:logs")


def test_our_own_keys_lie_where_no_job_id_can_reach_and_in_the_same_slot() -> None:
    assert QueueKeys("{bull}", "q").own == "toril:{bull}:q:"


@pytest.mark.parametrize("queue", ["", "a:b", ":"])
def test_a_queue_s_name_is_not_empty_and_holds_no_colon(queue: str) -> None:
    with pytest.raises(InvalidOptionError, match="must not be empty and must not hold a colon"):
        QueueKeys("bull", queue)


def test_a_prefix_is_not_empty() -> None:
    with pytest.raises(InvalidOptionError, match="must not be empty"):
        QueueKeys("", "q")


def test_workers_are_named_as_node_looks_for_them() -> None:
    keys = QueueKeys("bull", "my queue")
    assert keys.client_name() == "bull:bXkgcXVldWU="
    assert keys.client_name("w-1") == "bull:bXkgcXVldWU=:w:w-1"
    assert keys.events_client_name == "bull:bXkgcXVldWU=:qe"
    assert QueueKeys("bull", "größe").client_name() == "bull:" + base64.b64encode("größe".encode()).decode()


def test_what_the_server_refuses_in_a_client_s_name_becomes_a_dash() -> None:
    assert QueueKeys("bull", "q").client_name("host 1\n\tñ🙂\x00x").endswith(":w:host-1-----x")


def test_no_job_may_be_called_like_a_key_of_the_queue() -> None:
    assert {"wait", "meta", "id", "events", "metrics:completed", "stalled-check", "waiting-children"} <= RESERVED_JOB_IDS
    assert "7" not in RESERVED_JOB_IDS
