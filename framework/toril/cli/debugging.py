"""The work of `toril job debug`: one stored job's data, through the handler that this machine has, on a server of its own."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import pdb  # noqa: T100 -- what --pdb asks for
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from toril.cli import exit_codes
from toril.cli.common import CommonOptions
from toril.cli.errors import UsageError
from toril.cli.loading import load_module
from toril.cli.output import Output, printable
from toril.cli.reporting import report
from toril.cli.session import Session, run_session
from toril.clock import SystemClock
from toril.embedded import EmbeddedServer
from toril.errors import JobFailedError
from toril.queues.option_values import stored_options
from toril.queues.options import JobOptions
from toril.telemetry.logs import configure_logging
from toril.telemetry.redaction import redact_text, redact_traceback
from toril.testing.builder import Test
from toril.testing.errors import LeakError
from toril.wire.codec import JobRecord, from_json, to_json
from toril.worker.stored_errors import reason_of, stack_of


@dataclass(frozen=True, slots=True)
class _Run:
    """How the handler ended; `error` is the very object that it raised."""

    took_ms: int
    result: object = None
    error: BaseException | None = None


def run_debug(common: CommonOptions, queue: str, job_id: str, *, use_debugger: bool) -> int:
    """Read the job, run it here, and tell how it ended; the exit code: 1 if it failed again.

    The stored job is only read. What the handler does to other systems it really does; what it adds to queues goes to a server that
    is started for it, and ends with it.
    """
    read: list[JobRecord] = []

    async def fetch(session: Session) -> None:
        read.append((await (await session.queues.get(queue)).get_job(job_id)).record)

    app = common.app or os.environ.get("TORIL_APP")
    if app is None:
        error = UsageError("a job can only run where its handler is: name the application, as in --app app.main:AppModule")
        return report(error, show_traceback=common.debug, is_brief=True)
    code = run_session(common, fetch)
    if code != exit_codes.OK:
        return code
    [record] = read
    out = Output(as_json=common.as_json)
    faulthandler.enable()  # a crash in C tells its signal and the handler's line, before it ends this process
    out.note(f"running job {job_id} ({record.name}) of queue {queue} here; what its handler does to other systems is real")
    try:
        root = load_module(app)
        # The handler's own lines. How it ended is told here.
        configure_logging(level="info", levels={"toril.worker": "critical", "toril.jobs": "critical", "toril.application": "warning"})
        with tempfile.TemporaryDirectory(prefix="toril-debug-") as folder, EmbeddedServer(Path(folder)) as server:
            run = asyncio.run(_run(root, server.url, queue, record))
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- the end of the program
        return report(error, show_traceback=common.debug, is_brief=True)
    _tell(out, queue, record, run)
    if run.error is not None and use_debugger:
        pdb.post_mortem(run.error.__traceback__)
    return exit_codes.OK if run.error is None else exit_codes.FAILED


async def _run(root: type, url: str, queue: str, record: JobRecord) -> _Run:
    loop = asyncio.get_running_loop()
    options = JobOptions(attempts=1, timeout=stored_options(record.opts).timeout)
    data = from_json(record.data)
    async with Test.create_testing_module(imports=[root]).use_clock(SystemClock()).use_server(url, "debug").compile() as t:
        begun = loop.time()
        try:
            result, error = await t.run_job(record.name, data, queue=queue, options=options), None
        except JobFailedError as failure:
            result, error = None, failure.__cause__ or failure
        run = _Run(round((loop.time() - begun) * 1_000), result, error)
        try:
            await t.close()
        except LeakError as leak:  # worth knowing, and no answer to the question
            sys.stderr.write(f"{printable(str(leak))}\n")
    return run


def _tell(out: Output, queue: str, record: JobRecord, run: _Run) -> None:
    document: dict[str, object] = {
        "queue": queue,
        "id": record.job_id,
        "name": record.name,
        "outcome": "completed" if run.error is None else "failed",
        "took_ms": run.took_ms,
    }
    if run.error is None:
        text = to_json(run.result, "the result").decode()
        out.answer(
            document | {"result": from_json(text.encode()), "error": None}, f"completed after {run.took_ms} ms, and returned: {text}"
        )
        return
    stack = redact_traceback(stack_of(run.error))
    error = {"type": type(run.error).__name__, "message": redact_text(reason_of(run.error)), "stack": stack}
    out.answer(document | {"result": None, "error": error}, f"failed after {run.took_ms} ms:\n{stack.rstrip()}")
