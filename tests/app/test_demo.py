"""`make demo`: what it says on terminals and elsewhere, and what it makes of events."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from app.demo_board import Board, group_line, result_table, side_by_side
from app.email.jobs import EMAILS
from tests.app.processes import ROOT, Runner, Running
from toril import Job, Queue
from toril.queues.events import ActiveEvent, CompletedEvent, DelayedEvent, FailedEvent

GROUPS: Final = {
    "welcome": 1,
    "bulk": 50,
    "normal": 20,
    "high-priority": 20,
    "delayed by 3 s": 1,
    "refused twice": 1,
    "refused for good": 1,
    "daily report": 1,
    "refused until mended": 1,
    "replayed from dead-letter": 1,
    "overruns its timeout": 1,
    "cancelled while it runs": 1,
    "added while paused": 1,
}
FAILED: Final = ("refused for good", "refused until mended", "overruns its timeout", "cancelled while it runs")


def demo(run: Runner) -> Running:
    return run(sys.executable, "-u", "-m", "app.demo")


@contextmanager
def ready_worker(run: Runner) -> Generator[Running]:
    worker = run.worker()
    worker.read_until("ready")
    yield worker
    assert worker.end(signal.SIGTERM) == 0


# ── as a process ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_worker_it_adds_nothing_and_says_how_to_start_one(run: Runner, tmp_path: Path) -> None:
    alone = demo(run)
    assert alone.end() == 3
    assert re.search(r"No worker is running on \S+valkey\S*\. Start one in another terminal: make run-worker\n", alone.output)
    assert not (tmp_path / "mailbox").exists()
    with ready_worker(run):
        pass
    assert list((tmp_path / "mailbox").glob("*.eml")) == []  # nothing was waiting for the worker


def test_in_a_file_its_output_is_plain_lines_and_a_table_with_the_names_of_all_files(run: Runner, tmp_path: Path) -> None:
    run.environment.pop("COLUMNS")
    with ready_worker(run):
        shown = demo(run)
        assert shown.end() == 0, shown.output
    assert "\x1b" not in shown.output
    progress, _, results = shown.output.partition("What became of the jobs")
    for group, count in GROUPS.items():
        state = "failed" if group in FAILED else "completed"
        assert re.search(rf"^{group}: {'' if count == 1 else f'{count} '}{state} after \d+ attempt", progress, re.MULTILINE), progress
        assert f" {group if count == 1 else f'{group} ({count})'} " in results
    assert "refused twice: completed after 3 attempts" in progress
    assert "paused: emails holds 1 waiting job back" in progress
    assert "cancelled: shown in the demo" in results
    assert "timeout of 500ms" in results
    named = re.findall(r"\S+\.eml", results)
    assert len(named) == len(GROUPS) - len(FAILED) - 1  # a report names its recipients instead
    for name in named:
        assert (tmp_path / "mailbox" / name).is_file()
    assert len(list((tmp_path / "mailbox").glob("*.eml"))) == sum(GROUPS.values()) - len(FAILED)


def test_it_can_be_run_again_and_beside_a_mailbox_at_a_fixed_port(run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run.environment["TORIL_MAILBOX__PORT"] = str(port)  # the worker has it: the demo must not want it, too
    with ready_worker(run):
        for _ in range(2):
            shown = demo(run)
            assert shown.end() == 0, shown.output


def test_it_works_with_a_server_and_a_prefix_of_ones_own(run: Runner, toril_server_url: str, toril_prefix: str, tmp_path: Path) -> None:
    run.environment |= {"REDIS_URL": toril_server_url, "TORIL_PREFIX": toril_prefix}
    with ready_worker(run):
        shown = demo(run)
        assert shown.end() == 0, shown.output
        run.environment["TORIL_PREFIX"] = f"{toril_prefix}-other"  # where no worker is
        assert demo(run).end() == 3
    assert not (tmp_path / "valkey").exists()


def test_a_server_that_is_down_is_told_without_its_password(run: Runner) -> None:
    run.environment["REDIS_URL"] = "redis://:s3cret@127.0.0.1:1"
    down = demo(run)
    assert down.end() == 3
    assert "error: no server answers at redis://:***@127.0.0.1:1" in down.output
    assert "Traceback" not in down.output
    assert "s3cret" not in down.output


def test_settings_that_are_not_usable_are_told_as_they_are_written(run: Runner) -> None:
    run.environment["TORIL_MAIL__SENDER"] = "[/bold]"  # no markup
    wrong = demo(run)
    assert wrong.end() == 2
    assert "TORIL_MAIL__SENDER" in wrong.output
    assert "'[/bold]'" in wrong.output
    assert "Traceback" not in wrong.output


def test_on_a_terminal_a_live_table_shows_every_group_and_goes_away(run: Runner) -> None:
    run.environment |= {"TERM": "xterm-256color"}
    with ready_worker(run):
        screen, status = on_a_terminal(run)
    assert status == 0, screen
    while_running, _, afterwards = screen.partition("What became of the jobs")
    for group in GROUPS:
        assert group in while_running
        assert group in afterwards
    assert "\x1b[2K" in while_running  # lines are taken back
    assert "waiting" in while_running
    assert "after 50 attempts" not in screen  # those lines are for files
    assert "jobs ended as expected" in afterwards


def on_a_terminal(run: Runner) -> tuple[str, int]:
    """All that the demo writes to a terminal, and its exit code."""
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "app.demo"], run.environment)
    written = bytearray()
    try:
        with suppress(OSError):  # how Linux says that the other end is closed
            while part := os.read(descriptor, 65_536):
                written += part
    finally:
        os.close(descriptor)  # which hangs up on a demo that still runs, should the test be broken off
        _, status = os.waitpid(child, 0)
    return written.decode(), os.waitstatus_to_exitcode(status)


# ── what it makes of events ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def emails(toril_server_url: str, toril_prefix: str) -> AsyncIterator[Queue]:
    async with Queue(EMAILS, prefix=toril_prefix, url=toril_server_url) as queue:
        yield queue


def stamp(job: Job, after_ms: int) -> str:
    """The id of an event in the stream, so long after the job was added."""
    return f"{job.timestamp_ms + after_ms}-0"


async def test_a_job_is_followed_through_its_tries(emails: Queue) -> None:
    job = await emails.add("welcome-email", {})
    board = Board()
    board.follow("welcome", [job])
    followed = board.jobs[job.id]
    assert (followed.state, followed.wait_ms, followed.duration_ms) == ("waiting", None, None)
    board.hear(ActiveEvent(stream_id=stamp(job, 5), job_id=job.id))
    board.hear(DelayedEvent(stream_id=stamp(job, 9), job_id=job.id, due_at_ms=job.timestamp_ms + 1_000))
    assert (followed.state, board.has_ended) == ("delayed", False)
    board.hear(ActiveEvent(stream_id=stamp(job, 1_000), job_id=job.id))
    board.hear(CompletedEvent(stream_id=stamp(job, 1_007), job_id=job.id, return_value={"response": "250 kept as a.eml"}))
    assert (followed.state, followed.attempts, followed.wait_ms, followed.duration_ms) == ("completed", 2, 5, 7)
    assert followed.backoffs_ms == [991]
    assert (followed.outcome, board.has_ended, board.is_as_expected) == ("a.eml", True, True)
    assert group_line("welcome", [followed]) == "welcome: completed after 2 attempts"


async def test_a_job_that_should_have_failed_and_one_that_should_not_are_both_unexpected(emails: Queue) -> None:
    good, bad = await emails.add_many([emails.job("welcome-email", {}), emails.job("welcome-email", {})])
    board = Board()
    board.follow("refused for good", [bad], expected="failed")
    board.hear(CompletedEvent(stream_id=stamp(bad, 1), job_id=bad.id, return_value=None))
    assert (board.has_ended, board.is_as_expected) == (True, False)
    board = Board()
    board.follow("welcome", [good])
    board.hear(FailedEvent(stream_id=stamp(good, 1), job_id=good.id, reason="no [/bold] luck", previous="active"))
    assert (board.has_ended, board.is_as_expected) == (True, False)
    assert "no [/bold] luck" in shown(board)  # what a mail server says is no markup


async def test_what_has_not_ended_is_shown_without_times(emails: Queue) -> None:
    jobs = await emails.add_many([emails.job("normal", {}) for _ in range(3)])
    board = Board()
    board.follow("normal", jobs)
    board.hear(ActiveEvent(stream_id=stamp(jobs[0], 4), job_id=jobs[0].id))
    [row] = [line for line in shown(board).splitlines() if "normal (3)" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][1:5] == ["1 active, 2 waiting", "1", "4 ms", "-"]


async def test_events_of_other_jobs_are_not_counted(emails: Queue) -> None:
    job = await emails.add("welcome-email", {})
    board = Board()
    board.follow("welcome", [job])
    board.hear(ActiveEvent(stream_id="1-0", job_id="other"))
    assert board.jobs[job.id].state == "waiting"


@pytest.mark.parametrize(("normal_from_ms", "verdict"), [(10, "neither kind of notice waited"), (200, "one kind of notice waited")])
async def test_the_verdict_about_the_notices_is_what_the_times_say(emails: Queue, normal_from_ms: int, verdict: str) -> None:
    high, normal = await emails.add_many([emails.job("high-priority", {}), emails.job("normal", {})])
    board = Board()
    for group, job, begins in (("high-priority", high, 0), ("normal", normal, normal_from_ms)):
        board.follow(group, [job])
        board.hear(ActiveEvent(stream_id=stamp(job, begins), job_id=job.id))
        board.hear(CompletedEvent(stream_id=stamp(job, begins + 100), job_id=job.id, return_value=None))
    assert side_by_side(board).startswith(verdict)


def shown(board: Board) -> str:
    """The table, as it stands in a file."""
    console = Console(file=StringIO(), width=200)
    console.print(result_table(board))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
