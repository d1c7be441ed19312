"""Keys that nobody owns any more, found by going through all keys of a prefix, page by page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from toril.doctor.findings import Check, Finding
from toril.doctor.words import jobs_word, listed
from toril.queues.queue import Queue
from toril.wire.codec import id_text
from toril.wire.connection import Server
from toril.wire.key_pages import below, pages_of_keys
from toril.wire.keys import JOB_KINDS, QUEUE_KINDS, QueueKeys
from toril.wire.reads import LIST_STATES, READ_BATCH

_LIST_PAGE: Final = 10_000
_NO_JOBS: Final = ("repeat:", "de:", "dn:", "metrics:")
"""What follows a queue's base in keys that may look like those of jobs. (An iteration's hash does begin so: the script tells it apart.)"""

_KINDS: Final = frozenset(kind.removeprefix(":") for kind in JOB_KINDS if kind)


@dataclass(slots=True)
class _Keys:
    """What a queue's keys seem to be, by their names."""

    jobs: list[str] = field(default_factory=list[str])
    parts: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The kinds of a job's other keys that there are: `lock`, `logs`…, by its id."""


async def check_keys(server: Server, prefix: str, queues: Sequence[Queue[Any, Any]], *, are_all: bool) -> list[Finding]:
    """Whether jobs are in no state, and locks and other keys of jobs are without their job. The queues all have this prefix.

    Args:
        are_all: these are all queues that there are, so that keys of others belong to nobody.
    """
    by_name = {queue.name: queue for queue in queues}
    keys: defaultdict[str, _Keys] = defaultdict(_Keys)
    nobodys: Counter[str] = Counter()
    start = len(f"{prefix}:".encode())
    async for page in pages_of_keys(server.commands_of(QueueKeys(prefix, "any")), below(f"{prefix}:")):
        for key in page:
            name, _, rest = id_text(key[start:]).partition(":")
            if name in by_name and rest and rest not in QUEUE_KINDS:
                _sort_in(keys[name], rest)
            elif are_all and name not in by_name and (rest in QUEUE_KINDS or rest.isdecimal()):
                nobodys[name] += 1
    findings = [finding for name, found in sorted(keys.items()) for finding in await _check(by_name[name], found)]
    if nobodys:
        text = f"lists and jobs of queues whose settings (`meta`) are gone, so that nobody sees these queues: {listed(sorted(nobodys))}"
        fix = "somebody, or an evicting server, has deleted keys. The next job that is added to such a queue makes them anew"
        findings += Check("keys").warning(text, fix, queues=sorted(nobodys))
    return findings


def _sort_in(keys: _Keys, rest: str) -> None:
    job_id, _, kind = rest.rpartition(":")
    if job_id and kind in _KINDS:
        keys.parts[job_id].add(kind)
    elif not rest.startswith(_NO_JOBS) or rest.startswith("repeat:"):
        keys.jobs.append(rest)


async def _check(queue: Queue[Any, Any], keys: _Keys) -> list[Finding]:
    orphans = await _orphans(queue, keys.jobs)
    locks = [job_id for job_id, kinds in keys.parts.items() if "lock" in kinds and await queue.find_state(job_id) != "active"]
    ids = [job_id for job_id, kinds in keys.parts.items() if kinds - {"lock"}]
    gone = [job_id for job_id, row in zip(ids, await queue.commands.find_fields(ids, "name"), strict=True) if row is None]
    # Work goes on meanwhile: what has changed since the first look is no finding.
    orphans = await queue.commands.find_orphans(orphans) if orphans else []
    free = set(await queue.commands.unlocked(locks)) if locks else set[str]()
    locks = [job_id for job_id in locks if job_id not in free and await queue.find_state(job_id) != "active"]
    say = Check("keys", queue.name)
    findings: list[Finding] = []
    if orphans:
        text = f"{jobs_word(len(orphans))} in no state, which nobody will run or find, as after deleted keys: {listed(orphans)}"
        fix = f"toril queue orphans {queue.name} shows them, and with --remove it removes them"
        findings += say.warning(text, fix, orphans=orphans[:READ_BATCH])
    if locks:
        fix = "nothing to do unless they stay: a lock that nobody renews runs out by itself, within lock_duration"
        findings += say.info(f"locks of jobs that are not active: {listed(locks)}", fix, locks=locks[:READ_BATCH])
    if gone:
        fix = f"they only take memory. DEL {queue.keys.base}ID:logs, and the like, removes them"
        findings += say.info(f"logs or lists of children of jobs that are gone: {listed(gone)}", fix, leftovers=gone[:READ_BATCH])
    return findings or say.ok("each key belongs to a job or to the queue")


async def _orphans(queue: Queue[Any, Any], jobs: list[str]) -> list[str]:
    """Most jobs wait in a list, where the server would look each of them up by walking through it: those are known beforehand."""
    known: set[str] = set()
    for state in LIST_STATES:
        start = 0
        while page := await queue.commands.list_ids(state, start, start + _LIST_PAGE - 1, ascending=True):
            known.update(page)
            start += _LIST_PAGE
    candidates, found = [job_id for job_id in jobs if job_id not in known], list[str]()
    for at in range(0, len(candidates), READ_BATCH):
        found += await queue.commands.find_orphans(candidates[at : at + READ_BATCH])
    return found


async def schedule_owners(server: Server, prefix: str) -> Mapping[str, Sequence[str]]:
    """The applications that have declared schedules, by the queue in which these are."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    own = f"toril:{prefix}:"
    pattern = below(own) + ":schedules:*"
    async for page in pages_of_keys(server.commands_of(QueueKeys(prefix, "any")), pattern):
        for key in page:
            name, _, owner = id_text(key).removeprefix(own).partition(":schedules:")
            if ":" not in name:
                found[name].append(owner)
    return {name: sorted(set(owners)) for name, owners in found.items()}
