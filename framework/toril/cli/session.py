"""One run of a command: it connects, does its work, answers, and ends with a code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from toril.cli import exit_codes
from toril.cli.common import CommonOptions
from toril.cli.connecting import Queues, Source, connected, find_source
from toril.cli.output import Output
from toril.cli.reporting import report
from toril.telemetry.logs import configure_logging


@dataclass(frozen=True, slots=True)
class Session:
    """What the work of a command gets."""

    queues: Queues
    out: Output


def run_session(common: CommonOptions, work: Callable[[Session], Awaitable[int | None]]) -> int:
    """Connect, do the work, close; the exit code. Errors are told here, in one line unless `--debug` asks for more."""
    configure_logging(level="warning")
    out = Output(as_json=common.as_json)
    try:
        return asyncio.run(_work(find_source(common), work, out)) or exit_codes.OK
    except KeyboardInterrupt:
        out.note("interrupted")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:  # whoever reads the answer has seen enough
        out.give_up()
        return exit_codes.OK
    except Exception as error:  # noqa: BLE001 -- the end of the program
        return report(error, show_traceback=common.debug, is_brief=True)


async def _work(source: Source, work: Callable[[Session], Awaitable[int | None]], out: Output) -> int | None:
    async with connected(source) as queues:
        return await work(Session(queues, out))
