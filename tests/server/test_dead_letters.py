"""Jobs that fail for good leave a letter in another queue: written with the failure, read, replayed, purged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from typing_extensions import Unpack

from tests.bench import T0
from tests.proxy import Cut, Proxy, is_script, nth
from toril import Job, JobOptions, Queue, QueueModule, QueueOptions, Worker, WorkerOptions, fixed, process, processor
from toril.di import GraphErrors
from toril.errors import (
    DeadLetterError,
    InvalidCallError,
    InvalidOptionError,
    JobNotFoundError,
    LetterRefusedError,
    LockLostError,
    UnrecoverableError,
)
from toril.modules.errors import UnregisteredDeadLetterError
from toril.queues.options import JobOptionFields
from toril.testing import FakeClock, Test, eventually
from toril.wire.codec import JobRecord
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.jobs import NewJob
from toril.wire.keys import QueueKeys
from toril.worker.processor import Handlers


@pytest.fixture
def letters(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("dead-letter", prefix=prefix, server=server, clock=clock, default_job_options=JobOptions(remove_on_complete=False))


@pytest.fixture
def emails(server: Server, prefix: str, clock: FakeClock, letters: Queue) -> Queue:
    return Queue("emails", prefix=prefix, server=server, clock=clock, dead_letter=letters)


async def fail(job: Job) -> None:
    raise ValueError(f"no {job.name}")


async def run(queue: Queue, handler: Handlers = fail, options: WorkerOptions | None = None) -> None:
    async with Worker(queue, handler, options) as worker:
        await worker.wait_until_idle()


async def letter_of(emails: Queue, letters: Queue, **options: Unpack[JobOptionFields]) -> str:
    await emails.add("welcome", {"to": "ann"}, **options)
    await run(emails)
    (job,) = await letters.get_waiting()
    return job.id


async def test_a_job_that_fails_for_good_leaves_a_letter_with_all_that_is_known(emails: Queue, letters: Queue) -> None:
    job = await emails.add("welcome", {"to": "ann"}, attempts=2, priority=3, backoff=fixed("0s"))
    await run(emails)
    (letter,) = await letters.get_waiting()
    assert (letter.name, letter.options.remove_on_complete) == ("failed-job", False)
    data = letter.data
    stack = data["error"].pop("stack")
    assert stack.startswith("Traceback")
    assert "ValueError: no welcome" in stack
    assert data == {
        "originalJob": {
            "id": job.id,
            "name": "welcome",
            "data": {"to": "ann"},
            "opts": {"attempts": 2, "priority": 3, "backoff": {"type": "fixed", "delay": 0}},
            "attempts": 2,
            "queue": "emails",
        },
        "error": {"message": "no welcome"},
        "failedAt": "2023-11-14T22:13:20.000Z",
    }
    assert await job.get_state() == "failed"


async def test_an_attempt_that_will_be_repeated_and_a_job_that_completes_leave_none(emails: Queue, letters: Queue) -> None:
    await emails.add("later", attempts=2, backoff=fixed("1h"))
    await run(emails)
    await emails.add("good")

    async def good(job: Job) -> None: ...

    await run(emails, good)
    assert await letters.count() == 0


async def test_jobs_of_other_ends_leave_a_letter_too(emails: Queue, letters: Queue) -> None:
    async def unrecoverable(job: Job) -> None:
        raise UnrecoverableError("never")

    await emails.add("a", attempts=9)
    await run(emails, unrecoverable)
    await emails.add("unknown")
    await run(emails, {"known": fail}, WorkerOptions(unknown_names="fail"))
    messages = [letter.message for letter in await letters.dead_letters.list()]
    assert messages[0] == "never"
    assert "unknown" in messages[1]


async def test_a_job_that_was_put_back_for_its_name_too_often_leaves_a_letter(emails: Queue, letters: Queue, clock: FakeClock) -> None:
    await emails.add("unknown")
    for _ in range(6):
        assert await letters.count() == 0
        await run(emails, {"known": fail})
        clock.advance("1h")
    (letter,) = await letters.dead_letters.list()
    assert letter.name == "unknown"


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_turn_whose_reply_is_lost_leaves_one_letter(toril_server_url: str, prefix: str, clock: FakeClock, cut: Cut) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server:
        letters = Queue("dead-letter", prefix=prefix, server=server, clock=clock)
        emails = Queue("emails", prefix=prefix, server=server, clock=clock, dead_letter=letters)
        await emails.add_many([emails.job("a", {"n": n}) for n in range(5)])
        proxy.decide = nth(2, is_script("turn"), cut)
        await run(emails)
        assert sorted(letter.data["n"] for letter in await letters.dead_letters.list()) == [0, 1, 2, 3, 4]


# ── replay ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_replayed_job_starts_afresh_in_its_queue_and_the_letter_is_gone(emails: Queue, letters: Queue, clock: FakeClock) -> None:
    letter_id = await letter_of(emails, letters, attempts=2, delay="0s", priority=3, expires_in="1h", remove_on_fail=True)
    clock.advance("1d")
    if await letters.count() == 0:  # the second attempt follows at once
        pytest.fail("no letter")
    new_id = await letters.dead_letters.replay(letter_id)
    job = await emails.get_job(new_id)
    assert (job.name, job.data, job.attempts_made, await job.get_state()) == ("welcome", {"to": "ann"}, 0, "prioritized")
    assert (job.options.attempts, job.options.priority, job.timestamp_ms) == (2, 3, clock.now_ms())
    assert json.loads(job.record.opts)["expiresAt"] == clock.now_ms() + 3_600_000
    assert await letters.find_job(letter_id) is None
    assert await emails.count() == 1


async def test_replaying_twice_adds_the_job_once(emails: Queue, letters: Queue) -> None:
    letter_id = await letter_of(emails, letters)
    first = await letters.dead_letters.replay(letter_id)
    assert await letters.dead_letters.replay(letter_id) == first
    assert await emails.get_waiting_count() == 1


async def test_a_replay_whose_reply_is_lost_adds_the_job_once(toril_server_url: str, prefix: str, clock: FakeClock) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server:
        letters = Queue("dead-letter", prefix=prefix, server=server, clock=clock)
        emails = Queue("emails", prefix=prefix, server=server, clock=clock, dead_letter=letters)
        letter_id = await letter_of(emails, letters)
        proxy.decide = nth(1, is_script("replay_letter"), Cut.AFTER)
        new_id = await letters.dead_letters.replay(letter_id)
        assert [job.id for job in await emails.get_waiting()] == [new_id]


async def test_a_custom_id_and_the_place_in_a_flow_are_not_taken_over(emails: Queue, letters: Queue) -> None:
    letter_id = await letter_of(emails, letters, job_id="order-1", attempts=1)
    new_id = await letters.dead_letters.replay(letter_id)
    assert new_id != "order-1"
    assert json.loads((await emails.get_job(new_id)).record.opts) == {"attempts": 1}


async def test_all_letters_of_one_queue_are_replayed_the_oldest_first(
    server: Server, prefix: str, clock: FakeClock, emails: Queue, letters: Queue
) -> None:
    sms = Queue("sms", prefix=prefix, server=server, clock=clock, dead_letter=letters)
    for name in ("a", "b"):
        await emails.add(name)
        await run(emails)
    await sms.add("c")
    await run(sms)
    replayed = await letters.dead_letters.replay_all(queue="emails")
    assert [(await emails.get_job(new_id)).name for new_id in replayed.values()] == ["a", "b"]
    assert [letter.queue for letter in await letters.dead_letters.list()] == ["sms"]


async def test_a_letter_whose_queue_is_gone_stays_and_says_so(emails: Queue, letters: Queue, server: Server, prefix: str) -> None:
    letter_id = await letter_of(emails, letters)
    await server.commands.call("DEL", QueueKeys(prefix, "emails").meta)
    with pytest.raises(DeadLetterError, match="its queue 'emails' doesn't exist") as caught:
        await letters.dead_letters.replay(letter_id)
    assert caught.value.job_id == letter_id
    assert (await letters.dead_letters.get(letter_id)).name == "welcome"


async def test_what_is_no_letter_is_not_replayed(letters: Queue, emails: Queue) -> None:
    await emails.add("a")
    job = await letters.add("something else")
    with pytest.raises(DeadLetterError, match="something else"):
        await letters.dead_letters.replay(job.id)
    with pytest.raises(JobNotFoundError):
        await letters.dead_letters.replay("4711")
    assert await letters.count() == 1


async def test_a_letter_that_a_worker_processes_is_not_replayed(emails: Queue, letters: Queue) -> None:
    letter_id = await letter_of(emails, letters)
    refused: list[BaseException] = []

    async def process(job: Job) -> None:
        with pytest.raises(LockLostError) as caught:
            await letters.dead_letters.replay(job.id)
        refused.append(caught.value)

    await run(letters, process)
    assert len(refused) == 1
    assert await emails.count() == 0
    assert await (await letters.get_job(letter_id)).get_state() == "completed"


async def test_letters_are_purged_by_id_age_and_queue(emails: Queue, letters: Queue, clock: FakeClock) -> None:
    for name in ("a", "b", "c"):
        await emails.add(name)
        await run(emails)
        clock.advance("1h")
    first, second, third = [letter.id for letter in await letters.dead_letters.list()]
    plain = await letters.add("no letter")
    assert await letters.dead_letters.purge_all(older_than="3h") == [first]
    assert await letters.dead_letters.purge_all(queue="another") == []
    assert await letters.dead_letters.purge() == []
    assert await letters.dead_letters.purge(third, "4711", third, plain.id) == [third]
    assert await letters.dead_letters.purge_all() == [second]
    assert await letters.count() == 1


@pytest.fixture
def read_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each reading asks the server for."""
    counts: list[int] = []
    find_jobs = QueueCommands.find_jobs

    async def counted(self: QueueCommands, job_ids: Sequence[str]) -> list[JobRecord | None]:
        counts.append(len(job_ids))
        return await find_jobs(self, job_ids)

    monkeypatch.setattr(QueueCommands, "find_jobs", counted)
    return counts


async def test_many_letters_are_replayed_page_by_page(emails: Queue, letters: Queue, read_at_once: list[int]) -> None:
    await emails.add_many([emails.job(f"mail-{number}") for number in range(250)])
    await run(emails, options=WorkerOptions(concurrency=1))  # so that the letters come in the jobs' order
    await letters.add("no letter")
    read_at_once.clear()
    replayed = await letters.dead_letters.replay_all(limit=120)
    assert max(read_at_once) <= 100
    assert len(replayed) == 120
    replayed |= await letters.dead_letters.replay_all()
    assert [(await emails.get_job(new_id)).name for new_id in replayed.values()] == [f"mail-{number}" for number in range(250)]
    assert await letters.count() == 1


async def test_many_letters_are_purged_page_by_page(emails: Queue, letters: Queue, read_at_once: list[int]) -> None:
    await emails.add_many([emails.job("mail") for _ in range(250)])
    await run(emails)
    await letters.add("no letter")
    read_at_once.clear()
    assert len(await letters.dead_letters.purge_all()) == 250
    assert max(read_at_once) <= 100
    assert await letters.count() == 1


async def test_replaying_all_ends_although_each_job_fails_again_at_once(emails: Queue, letters: Queue) -> None:
    await emails.add_many([emails.job("mail") for _ in range(150)])
    await run(emails)
    old = [letter.id for letter in await letters.dead_letters.list()]
    async with Worker(emails, fail) as worker:
        replayed = await letters.dead_letters.replay_all()
        worker.look_again()
        await worker.wait_until_idle()
    assert list(replayed) == old
    assert sorted(letter.job_id for letter in await letters.dead_letters.list()) == sorted(replayed.values())


async def test_purging_all_leaves_the_letters_that_arrive_meanwhile(emails: Queue, letters: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    await emails.add_many([emails.job("mail") for _ in range(150)])
    await run(emails)
    late: list[Job] = []
    remove = Queue.remove

    async def remove_and_fail_another(self: Queue, job_id: str) -> bool:
        if len(late) < 3:
            late.append(await emails.add("late"))
            worker.look_again()
            await worker.wait_until_idle()
        return await remove(self, job_id)

    async with Worker(emails, fail) as worker:
        monkeypatch.setattr(Queue, "remove", remove_and_fail_another)
        assert len(await letters.dead_letters.purge_all()) == 150
    assert [letter.job_id for letter in await letters.dead_letters.list()] == [job.id for job in late]


async def test_a_letter_that_others_take_while_all_are_replayed_is_left_to_them(
    emails: Queue, letters: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await emails.add_many([emails.job(name) for name in ("a", "b", "c")])
    await run(emails)
    first, second, third = [letter.id for letter in await letters.dead_letters.list()]
    replay = QueueCommands.replay_letter

    async def take_the_others(self: QueueCommands, job_id: str, now_ms: int, base: str, job: NewJob) -> str | None:
        monkeypatch.setattr(QueueCommands, "replay_letter", replay)
        await letters.remove(second)
        await run(letters, nothing)
        return await replay(self, job_id, now_ms, base, job)

    async def nothing(job: Job) -> None: ...

    monkeypatch.setattr(QueueCommands, "replay_letter", take_the_others)
    assert list(await letters.dead_letters.replay_all()) == [first]
    assert await letters.find_state(third) == "completed"


async def test_a_letter_comes_home_across_prefixes(server: Server, prefix: str, clock: FakeClock) -> None:
    letters = Queue("dead-letter", prefix=f"{prefix}-letters", server=server, clock=clock)
    emails = Queue("emails", prefix=prefix, server=server, clock=clock, dead_letter=letters)
    new_id = await letters.dead_letters.replay(await letter_of(emails, letters))
    assert (await emails.get_job(new_id)).name == "welcome"


def test_a_queue_cant_be_its_own_or_lie_elsewhere() -> None:
    with pytest.raises(InvalidOptionError, match="its own"):
        Queue("emails", dead_letter="emails")
    with pytest.raises(InvalidOptionError, match="hash tag"):
        Queue("emails", prefix="{a}", dead_letter=Queue("dead", prefix="{b}"))


# ── in modules ────────────────────────────────────────────────────────────────────────────────────────────────


@processor("emails")
class Failing:
    @process()
    async def run(self, job: Job) -> None:
        raise ValueError("no")


async def test_letters_get_the_options_of_the_registered_queue_wherever_that_is() -> None:
    letters = QueueModule.register_queue(QueueOptions("dead-letter", default_job_options=JobOptions(attempts=4, priority=2)))
    emails = QueueModule.register_queue(QueueOptions("emails", dead_letter="dead-letter"))
    async with await Test.create_testing_module(imports=[emails, letters], providers=[Failing]).compile() as t:
        await t.queue("emails").add("a")
        await t.drain("emails")
        (letter,) = await t.queue("dead-letter").get_prioritized()
        assert (letter.options.attempts, letter.priority) == (4, 2)


async def test_letters_that_would_go_nowhere_are_found_before_anything_is_made() -> None:
    emails = QueueModule.register_queue(QueueOptions("emails", dead_letter="dead-leter"), "dead-letter")
    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[emails]).compile()
    (error,) = caught.value.errors
    assert isinstance(error, UnregisteredDeadLetterError)
    assert (error.queue, error.dead_letter) == ("emails", "dead-leter")
    assert "did you mean 'dead-letter'?" in str(error)
    assert "test_dead_letters.py" in str(error)


async def test_options_that_a_function_makes_are_checked_when_it_has_made_them() -> None:
    emails = QueueModule.register_queue_async("emails", use_factory=lambda: QueueOptions("emails", dead_letter="nowhere"), inject=[])
    with pytest.raises(InvalidOptionError, match="of queue 'emails': queue 'nowhere' is not registered"):
        await Test.create_testing_module(imports=[emails]).compile()


def test_options_that_name_their_own_queue_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="its own"):
        QueueOptions("emails", dead_letter="emails")


# ── what must never hold up the job, nor cost a letter ────────────────────────────────────────────────────────────


async def test_a_letter_that_cant_be_made_costs_only_the_letter(server: Server, prefix: str, clock: FakeClock) -> None:
    small = Queue("dead-letter", prefix=prefix, server=server, clock=clock, default_job_options=JobOptions(size_limit=50))
    queue = Queue("emails", prefix=prefix, server=server, clock=clock, dead_letter=small)
    job = await queue.add("welcome")
    await run(queue)
    assert (await job.get_state(), await small.count()) == ("failed", 0)


async def test_a_letter_tells_of_an_id_that_is_no_text(server: Server, emails: Queue, letters: Queue) -> None:
    raw = b"\xff"
    await server.commands.call("HSET", emails.keys.base.encode() + raw, "name", "a", "data", "{}", "opts", "{}", "timestamp", T0)
    await server.commands.call("LPUSH", emails.keys.base + "wait", raw)
    await run(emails)
    (letter,) = await letters.dead_letters.list()
    assert letter.job_id == "\ufffd"


async def test_a_letter_with_the_id_of_one_that_was_replayed_is_replayed_too(server: Server, emails: Queue, letters: Queue) -> None:
    first = await letter_of(emails, letters)
    again = await letters.dead_letters.replay(first)
    await server.commands.call(
        "DEL", letters.keys.base + "id"
    )  # as after Node's obliterate: the ids begin anew, and our own keys are still there
    await run(emails)
    (letter,) = await letters.dead_letters.list()
    assert letter.id == first
    new = await letters.dead_letters.replay(first)
    assert new != again
    assert [job.id for job in await emails.get_waiting()] == [new]
    assert await letters.dead_letters.list() == []


@pytest.mark.parametrize("suffix", ["wait", "id", "meta", "events", "marker", "delayed"])
@pytest.mark.parametrize("unknown", [False, True], ids=["failed", "unknown"])
async def test_a_job_waits_for_its_letter_while_the_letters_queue_cant_take_it(
    server: Server, emails: Queue, letters: Queue, clock: FakeClock, suffix: str, unknown: bool
) -> None:
    key = letters.keys.base + suffix
    await server.commands.call("SET", key, "somebody's note")
    job = await emails.add("welcome", remove_on_fail=True)
    calls: list[str] = []
    errors: list[BaseException] = []

    async def handle(job: Job) -> None:
        calls.append(job.id)
        raise ValueError("no")

    worker = Worker(emails, {"other" if unknown else "welcome": handle}, WorkerOptions(unknown_names="fail"))
    worker.on("error", errors.append)
    async with worker:
        await eventually(lambda: _told(errors))
        assert await job.get_state() == "active"
        assert key in str(errors[0])
        assert isinstance(errors[0], LetterRefusedError)
        clock.advance("5s")  # it is tried again, in vain
        await clock.settle()
        await worker.wait_until_idle()
        assert await job.get_state() == "active"
        await server.commands.call("DEL", key)
        clock.advance("5s")
        await clock.settle()
        await eventually(lambda: _has_letter(letters, job.id))
    assert len(errors) == 1
    assert len(calls) == (0 if unknown else 1)
    assert await emails.find_job(job.id) is None


async def _told(errors: list[BaseException]) -> None:
    assert errors


async def _has_letter(letters: Queue, job_id: str) -> None:
    assert [letter.job_id for letter in await letters.dead_letters.list()] == [job_id]


async def test_a_letter_never_takes_the_place_of_an_older_one(server: Server, emails: Queue, letters: Queue) -> None:
    await letter_of(emails, letters)
    await server.commands.call("DEL", letters.keys.base + "id")
    await emails.add("second")
    await run(emails)
    assert [letter.name for letter in await letters.dead_letters.list()] == ["welcome", "second"]


@pytest.mark.parametrize("suffix", ["wait", "id", "events", "marker"])
async def test_a_letter_whose_queue_cant_take_the_job_stays_and_says_which_key_it_is(
    server: Server, emails: Queue, letters: Queue, suffix: str
) -> None:
    letter_id = await letter_of(emails, letters)
    key = emails.keys.base + suffix
    await server.commands.call("DEL", key)
    await server.commands.call("SET", key, "somebody's note")
    with pytest.raises(DeadLetterError) as caught:
        await letters.dead_letters.replay(letter_id)
    assert key in str(caught.value)
    await server.commands.call("DEL", key)
    new_id = await letters.dead_letters.replay(letter_id)
    assert [job.id for job in await emails.get_waiting()] == [new_id]


@pytest.mark.parametrize("name", ["", "a:b", 5, None], ids=["empty", "colon", "number", "none"])
async def test_a_letter_with_an_odd_queue_says_what_is_wrong_and_stays(letters: Queue, name: object) -> None:
    original: dict[str, object] = {"id": "1", "name": "welcome", "data": {}, "opts": {}, "attempts": 1, "queue": name}
    job = await letters.add("failed-job", {"originalJob": original, "error": {}, "failedAt": ""})
    with pytest.raises(DeadLetterError) as caught:
        await letters.dead_letters.replay(job.id)
    assert caught.value.job_id == job.id
    assert repr(name) in str(caught.value)
    assert await job.get_state() == "waiting"


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_replaying_process_that_dies_leaves_the_letter_or_the_job(
    toril_server_url: str, emails: Queue, letters: Queue, clock: FakeClock, cut: Cut
) -> None:
    """Its connection is cut at the script, and it never comes back to try again."""
    letter_id = await letter_of(emails, letters)
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server:
        dying = Queue("dead-letter", prefix=letters.prefix, server=server, clock=clock)
        proxy.decide = lambda request: cut if is_script("replay_letter")(request) else None
        replaying = asyncio.create_task(dying.dead_letters.replay(letter_id))
        await proxy.seen(is_script("replay_letter"), 1)
        replaying.cancel()
        await asyncio.wait({replaying})
    if cut is Cut.AFTER:
        await eventually(lambda: _is_gone(letters, letter_id))
    assert await emails.get_waiting_count() + await letters.count() == 1
    new_id = await letters.dead_letters.replay(letter_id)
    assert [job.id for job in await emails.get_waiting()] == [new_id]
    assert await letters.count() == 0


async def _is_gone(letters: Queue, letter_id: str) -> None:
    assert await letters.find_job(letter_id) is None


async def test_who_asks_the_wrong_queue_for_its_letters_is_told_where_they_are(emails: Queue, caplog: pytest.LogCaptureFixture) -> None:
    await emails.add("n", attempts=1)
    async with Worker(emails, fail) as worker:
        await worker.wait_until_idle()
    assert await emails.dead_letters.list() == []
    assert "those about its own jobs go to another queue=emails to=dead-letter" in caplog.text


async def test_arguments_that_need_their_name_are_told_so(emails: Queue) -> None:
    job = await emails.add("n")
    untyped: Any = job, emails
    with pytest.raises(InvalidCallError, match=r"Job\.result takes no arguments without a name"):
        await untyped[0].result("5s")
    with pytest.raises(InvalidCallError, match=r"Queue\.clean takes 1 argument without a name"):
        await untyped[1].clean("5s", "completed")
