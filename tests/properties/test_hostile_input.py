"""Hostile input: whatever is passed in either arrives equal, or is refused before it is sent; whatever is found there stops no worker.

Examples are the same in every run. `TORIL_EXAMPLES=2000` looks at other and more ones; a failure prints how to repeat its example.
"""

from __future__ import annotations

import math
import os
from typing import Final, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.bench import Bench
from toril.errors import InvalidOptionError, NotJsonError
from toril.queues.events import UnknownEvent, read_event
from toril.queues.job import Job
from toril.queues.payloads import DATA_DEPTH
from toril.queues.queue import Queue
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

_EXAMPLES: Final = os.environ.get("TORIL_EXAMPLES")

bounded = settings(
    max_examples=int(_EXAMPLES or 60),
    derandomize=_EXAMPLES is None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_TEXTS: Final = st.text(st.characters(), max_size=20) | st.sampled_from(["__proto__", "constructor", "\0", "\ud800", "a:b", "\u2028", "💥"])
_NUMBERS: Final = st.integers() | st.floats() | st.sampled_from([2**53 + 1, -(2**63), 10**400, 1e308, -0.0])
_VALUES: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int, *, in_lists: bool = True) -> object:
    """A value with so many brackets around it."""
    value: object = 1
    for _ in range(levels):
        value = [value] if in_lists else {"a": value}
    return value


def is_json(value: object) -> bool:
    """Whether RFC 8259 has a text for it: no NaN, no infinity, no half characters."""
    match value:
        case float():
            return math.isfinite(value)
        case str():
            return value == value.encode("utf-8", "ignore").decode()
        case dict():
            return all(is_json(key) and is_json(inner) for key, inner in cast("dict[str, object]", value).items())
        case list():
            return all(map(is_json, cast("list[object]", value)))
        case _:
            return True


@bounded
@example(values=["x" * 10_000_000, nested(DATA_DEPTH), nested(DATA_DEPTH, in_lists=False)])
@example(values=[10**400, 10**4_299, "[{" * 500, "9" * 5_000])
@given(values=st.lists(_VALUES, min_size=1, max_size=10))
@pytest.mark.timeout(0)
@pytest.mark.blocks_the_loop  # it doesn't, but looking for that in each of asyncio's debug stacks takes longer than the test
async def test_any_json_arrives_equal_and_all_else_is_refused_before_it_is_sent(server: Server, prefix: str, values: list[object]) -> None:
    queue = await Queue("q", prefix=prefix, server=server).open()
    seen: dict[str, object] = {}

    async def echo(job: Job) -> object:
        seen[job.id] = job.data
        return job.data

    sent: list[tuple[Job, object]] = []
    before = await queue.get_job_counts()
    for value in values:
        if is_json(value):
            sent.append((await queue.add("n", value), value))
        else:
            with pytest.raises(NotJsonError) as caught:
                await queue.add("n", value)
            assert caught.value.path.startswith("$")
    assert sum((await queue.get_job_counts()).values()) == sum(before.values()) + len(sent)
    async with Worker(queue, echo) as worker:
        await worker.wait_until_idle()
    for job, value in sent:
        await job.refresh()
        assert seen[job.id] == value
        assert job.return_value == value
    await queue.obliterate(force=True)


@pytest.mark.parametrize("in_lists", [True, False])
@pytest.mark.parametrize("levels", [DATA_DEPTH + 1, 201, 254, 255, 10_000])
async def test_what_is_nested_deeper_than_can_be_read_is_refused(server: Server, prefix: str, levels: int, in_lists: bool) -> None:
    queue = await Queue("q", prefix=prefix, server=server).open()
    job = await queue.add("n")
    for attempt in (lambda: queue.add("n", nested(levels, in_lists=in_lists)), lambda: job.update_data(nested(levels, in_lists=in_lists))):
        with pytest.raises(NotJsonError, match="nested deeper than"):
            await attempt()
    assert await queue.count() == 1


async def test_a_number_too_long_to_be_read_is_refused_as_data_and_as_a_result(server: Server, prefix: str) -> None:
    queue = await Queue("q", prefix=prefix, server=server).open()
    with pytest.raises(NotJsonError, match="4,300 digits"):
        await queue.add("n", {"n": 10**4_300})

    async def huge(job: Job) -> int:
        return 10**5_000

    job = await queue.add("n", attempts=3)
    async with Worker(queue, huge) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)


@bounded
@example(raw=b"[" * 10_000 + b"]" * 10_000)
@example(raw=b'{"a": NaN}')
@example(raw=b'{"a": 1e400}')
@example(raw=b'"\\ud800"')
@example(raw=b"\xff")
@example(raw=b"")
@given(raw=st.binary(max_size=50))
@pytest.mark.timeout(0)
@pytest.mark.blocks_the_loop
async def test_whatever_bytes_a_job_holds_it_runs_or_fails_by_name_and_the_next_one_runs(server: Server, prefix: str, raw: bytes) -> None:
    bench = Bench(server, prefix)
    queue = await Queue("q", prefix=prefix, server=server).open()
    ran: list[str] = []

    async def handler(job: Job) -> None:
        ran.append(job.id)

    foreign, sound = await queue.add("n"), await queue.add("n")
    await bench.raw("HSET", bench.key(foreign.id), "data", raw)
    async with Worker(queue, handler) as worker:
        await worker.wait_until_idle()
    await foreign.refresh()
    assert sound.id in ran
    state = await foreign.get_state()
    assert state == ("completed" if foreign.id in ran else "failed")
    if state == "failed":
        assert f"the data of job {foreign.id} ('n')" in (foreign.failed_reason or "")
    await queue.obliterate(force=True)


@bounded
@example(text="x" * 10_000)
@given(text=_TEXTS)
@pytest.mark.timeout(0)
@pytest.mark.blocks_the_loop
async def test_a_job_of_any_name_and_id_runs_or_is_refused(server: Server, prefix: str, text: str) -> None:
    queue = await Queue("q", prefix=prefix, server=server).open()
    ran: list[tuple[str, str]] = []

    async def handler(job: Job) -> None:
        ran.append((job.name, job.id))

    asked: list[tuple[str, str]] = []
    refused: list[str] = []
    for name, job_id in ((text, "an-id"), ("n", text)):
        try:
            job = await queue.add(name, job_id=job_id)
        except InvalidOptionError as error:
            refused.append(error.option)
        else:
            asked.append((name, job_id or job.id))
    async with Worker(queue, handler, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
    assert sorted(ran) == sorted(asked)
    assert set(refused) <= {"name", "job_id"}
    await queue.obliterate(force=True)


@pytest.mark.parametrize("name", ["__init__", "handle.__class__", "../x", "os:system", "toril.worker.programs:imported", "__call__"])
async def test_a_handler_is_chosen_by_its_registered_name_alone(server: Server, prefix: str, name: str) -> None:
    queue = await Queue("q", prefix=prefix, server=server).open()
    ran: list[str] = []

    async def handler(job: Job) -> None:
        ran.append(job.name)

    hostile = await queue.add(name, {"name": "known", "target": "os:system", "__class__": "known"})
    await queue.add("known", {"name": name})
    async with Worker(queue, {"known": handler}, WorkerOptions(unknown_names="fail")) as worker:
        await worker.wait_until_idle()
    assert ran == ["known"]
    assert await hostile.get_state() == "failed"


@pytest.mark.parametrize("number", ["inf", "-inf", "1e999", "nan", "", "x"])
def test_an_event_with_a_number_that_is_none_is_shown_as_it_stands_there(number: str) -> None:
    event = read_event("1-0", {"event": "delayed", "jobId": "1", "delay": number})
    assert isinstance(event, UnknownEvent)
    assert event.fields["delay"] == number
