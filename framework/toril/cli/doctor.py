"""The work of `toril doctor`."""

from __future__ import annotations

from typing import Any, Final

from rich.text import Text

from toril.cli import exit_codes
from toril.cli.output import printable
from toril.cli.session import Session
from toril.clock import SystemClock
from toril.doctor.examination import examine
from toril.doctor.findings import Finding, Severity, worst

_STYLES: Final = {Severity.OK: "green", Severity.INFO: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}
_WIDTH: Final = len("warning") + 2


async def run_doctor(session: Session, names: list[str], *, everything: bool, fail_on: str, all_keys: bool) -> int:
    """Look at the server and these queues, or all; 1 if something is as bad as `fail_on` says."""
    queues = session.queues
    chosen = await queues.some(names)
    looked = examine(queues.server, queues.prefix, chosen, SystemClock(), are_all=not names, all_keys=all_keys)
    with session.out.progress() as progress:
        progress.add_task("looking", total=None)
        found = [one async for one in looked]
    found.sort(key=lambda one: -one.severity)  # the order of the checks stays within a severity
    shown = [one for one in found if everything or one.severity > Severity.OK]
    document = {
        "server": str(queues.server.address),
        "prefix": queues.prefix,
        "queues": [queue.name for queue in chosen],
        "worst": worst(found).word,
        "findings": [_document(one) for one in found],
    }
    session.out.answer(document, *map(_text, shown), _summary(found, len(found) - len(shown)))
    return exit_codes.FAILED if worst(found) >= Severity[fail_on.upper()] else exit_codes.OK


def _document(one: Finding) -> dict[str, Any]:
    return {
        "check": one.check, "severity": one.severity.word, "queue": one.queue, "text": one.text, "fix": one.fix, "facts": dict(one.facts),
    }  # fmt: skip


def _text(one: Finding) -> Text:
    text = Text(one.severity.word.ljust(_WIDTH), style=_STYLES[one.severity])
    text.append(printable(f"{one.queue or 'server'}: {one.check}: {one.text}", one_line=True), style="default not bold")
    if one.fix is not None:
        text.append(printable(f"\n{' ' * _WIDTH}fix: {one.fix}"), style="default not bold")
    return text


def _summary(found: list[Finding], hidden: int) -> str:
    counts = {severity: sum(one.severity is severity for one in found) for severity in reversed(Severity)}
    told = ", ".join(f"{count} {severity.word}" for severity, count in counts.items() if count)
    return f"{told}{' (--all shows what is ok)' if hidden else ''}"
