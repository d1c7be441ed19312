"""How a claimed job leaves the active list, in the words of the turn script."""

from __future__ import annotations

from typing import TypeAlias

from toril.wire.jobs import NewJob
from toril.wire.refusals import Argument

Ending: TypeAlias = tuple[Argument, ...]
"""How a claimed job leaves the active list, as the turn script takes it: seven values, or fourteen with a dead letter before them.
Made by the functions below, never by hand."""


def completed(job_id: str, token: str, value: bytes, keep: str) -> Ending:
    """It completed with `value` (JSON); `keep` as `keep_rule` writes it."""
    return ("c", job_id, token, value, "", keep, "")


def failed(job_id: str, token: str, reason: str, stack: bytes, keep: str, attempts: int, letter: Ending = ()) -> Ending:
    """It failed for good; `stack` is the JSON list of the stacks of all attempts, `attempts` how many it was allowed."""
    return (*letter, "f", job_id, token, sendable(reason), stack, keep, attempts)


def dead_letter(base: str, job: NewJob) -> Ending:
    """What goes to another queue (by the base of its keys) if the job fails for good: a part of `failed` and `unknown_name`."""
    return ("l", base, job.name, job.data, job.opts, job.delay_ms, job.priority)


def retried(job_id: str, token: str, reason: str, stack: bytes, delay_ms: int, lifo: bool, keep: str = "") -> Ending:
    """The attempt failed, and it runs again: at once, or after a delay.

    `keep`, here and below: what stays of it if it finds itself cancelled, which makes it a failed one.
    """
    if delay_ms > 0:
        return ("d", job_id, token, sendable(reason), stack, delay_ms, keep)
    return ("r", job_id, token, sendable(reason), stack, 1 if lifo else 0, keep)


def put_off(job_id: str, token: str, delay_ms: int, keep: str = "") -> Ending:
    """Its handler wants it to run again later; no attempt is spent."""
    return ("o", job_id, token, "", "", delay_ms, keep)


def put_back(job_id: str, token: str, limit_ms: int | None = None, keep: str = "") -> Ending:
    """It runs again as soon as possible; no attempt is spent.

    With `limit_ms` because of a rate limit: one for so many ms is set first (0: there is one already), and what is left of it
    comes back as the detail.
    """
    return ("w", job_id, token, "" if limit_ms is None else limit_ms, "", "", keep)


def waiting_for_children(job_id: str, token: str, keep: str = "") -> Ending:
    """It goes on when its children have ended: code 0; NO_CHILD_PENDING if none of them is pending, and then nothing has happened."""
    return ("m", job_id, token, "", "", "", keep)


def unknown_name(
    job_id: str, token: str, reason: str, stack: bytes, keep: str, attempts: int, first_delay_ms: int, letter: Ending = ()
) -> Ending:
    """Nobody here handles its name: put off with a delay that doubles each time, the sixth time failed."""
    return (*letter, "u", job_id, token, sendable(reason), stack, keep, f"{first_delay_ms},{attempts}")


def sendable(text: str) -> bytes:
    """Text that somebody's code made: lone surrogates (a file's name can hold them) must not stop the job from ending."""
    return text.encode("utf-8", "backslashreplace")


def keep_rule(count: int | None, age_ms: int | None, limit: int | None = None) -> str:
    """What stays of finished jobs of one kind: all (None and None), at most `count`, none older than `age_ms`."""
    if count is None and age_ms is None:
        return ""
    return f"{'' if count is None else count},{'' if age_ms is None else age_ms},{'' if limit is None else limit}"
