"""Dead letters on a server whose user may not write to the letters' queue: the job waits for its letter, and neither is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.servers import OwnServer, one_server
from toril import Job, JobOptions, Queue, Worker
from toril.errors import DeadLetterError, LetterRefusedError
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server

USER: Final = "mailer"
ALL: Final = ("on", ">secret", "resetkeys", "resetchannels", "&*", "+@all", "~bull:emails:*", "~toril:bull:*")


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[OwnServer]:
    async with one_server(tmp_path / "server") as server:
        yield server


async def rights(server: OwnServer, *rules: str) -> None:
    """What the worker's user may do besides everything with the queue `emails`."""
    await server.ask("ACL", "SETUSER", USER, *ALL, *rules)


def url_of(server: OwnServer) -> str:
    return server.url.replace("unix://", f"unix://{USER}:secret@")


def only(*suffixes: str) -> tuple[str, ...]:
    """The right to read all keys of the letters, and to write some."""
    return "%R~bull:dead-letter:*", *(f"~bull:dead-letter:{suffix}" for suffix in suffixes)


LACKING: Final = {
    "reads only": only(),
    "nothing at all": (),
    "all but the id": only("meta", "events", "marker", "delayed", "wait", "pc", "prioritized", "1"),
    "all but the jobs": only("meta", "events", "marker", "delayed", "wait", "pc", "prioritized", "id"),
    "all but the place": only("meta", "events", "marker", "delayed", "id", "1"),
}


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("lacking", LACKING.values(), ids=LACKING)
async def test_a_job_waits_for_its_letter_until_the_user_may_write_it(
    own_server: OwnServer, lacking: tuple[str, ...], priority: int
) -> None:
    await rights(own_server, *lacking)
    clock, calls, errors = FakeClock(1_700_000_000_000), list[str](), list[BaseException]()

    async def handle(job: Job) -> None:
        calls.append(job.id)
        raise ValueError("no")

    async with Server(url_of(own_server)) as theirs, Server(own_server.url) as ours:
        options = JobOptions(priority=priority)
        emails = Queue("emails", server=theirs, clock=clock, dead_letter=Queue("dead-letter", server=theirs, default_job_options=options))
        letters = Queue("dead-letter", server=ours, clock=clock)
        job, sound = await emails.add("welcome", remove_on_fail=True), await emails.add("sound")
        worker = Worker(emails, {"welcome": handle, "sound": handle_well})
        worker.on("error", errors.append)
        async with worker:
            await eventually(lambda: _is(bool(errors)))
            (error,) = errors
            assert isinstance(error, LetterRefusedError)
            assert "bull:dead-letter:" in str(error)
            assert "user" in str(error)
            await eventually(lambda: _has_state(emails, sound.id, "completed"))  # the others go on
            assert await job.get_state() == "active"
            assert await own_server.ask("KEYS", "bull:dead-letter:*") == []
            await rights(own_server, "~bull:dead-letter:*")
            clock.advance("5s")
            await clock.settle()
            await eventually(lambda: _has_letter(letters, job.id))
            assert await emails.find_job(job.id) is None
    assert (len(calls), len(errors)) == (1, 1)


async def test_a_letter_stays_while_the_user_may_not_write_to_the_jobs_queue(own_server: OwnServer) -> None:
    async def handle(job: Job) -> None:
        raise ValueError("no")

    async with Server(url_of(own_server)) as theirs, Server(own_server.url) as ours:
        await rights(own_server)
        letters = Queue("dead-letter", server=ours)
        emails = Queue("emails", server=ours, dead_letter=letters)
        await emails.add("welcome")
        async with Worker(emails, handle) as worker:
            await worker.wait_until_idle()
        (letter,) = await letters.dead_letters.list()
        await own_server.ask("ACL", "SETUSER", USER, "resetkeys", "~bull:dead-letter:*", "~toril:bull:*", "%R~bull:emails:*")
        with pytest.raises(DeadLetterError, match=r"bull:emails:\S+ must not be written"):
            await Queue("dead-letter", server=theirs).dead_letters.replay(letter.id)
        assert await emails.get_waiting_count() == 0
        new_id = await letters.dead_letters.replay(letter.id)
        assert [job.id for job in await emails.get_waiting()] == [new_id]


async def handle_well(job: Job) -> None: ...


def _is(holds: bool) -> None:
    assert holds


async def _has_state(queue: Queue, job_id: str, state: str) -> None:
    assert await queue.find_state(job_id) == state


async def _has_letter(letters: Queue, job_id: str) -> None:
    assert [letter.job_id for letter in await letters.dead_letters.list()] == [job_id]
