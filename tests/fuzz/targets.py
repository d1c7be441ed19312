"""What is fuzzed: the readers of what others have written, and what they may raise (nothing, or the error that they document)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from toril.durations import to_ms
from toril.errors import InvalidCronError, InvalidDurationError, InvalidOptionError, InvalidPayloadError, InvalidRedisUrlError
from toril.queues.cron import Cron
from toril.queues.dead_letters import FAILED_JOB, read_letter
from toril.queues.events import read_event
from toril.queues.job import Job
from toril.queues.option_values import stored_expiry_ms, stored_options
from toril.queues.payloads import PayloadType
from toril.queues.queue import Queue
from toril.telemetry.redaction import redact, redact_text, redact_traceback, redact_url
from toril.wire.address import ServerAddress
from toril.wire.codec import JOB_FIELDS, JobRecord, from_json_or, id_bytes, id_text, job_record
from toril.wire.connection import Server
from toril.wire.option_names import decode_options
from toril.worker.policy import Policies

SECRET: Final = "hunter2hunter2"

_queue: Final[Queue[Any, Any]] = Queue("q", server=Server("redis://127.0.0.1:1"))
_policies: Final = Policies(None, None)


def _listed(data: bytes) -> list[bytes]:
    """Cut at zero bytes, each part the value of a field; a part `-` is a field that isn't there."""
    parts = data.split(b"\0")
    return [one for field, part in zip(JOB_FIELDS, parts, strict=False) if part != b"-" for one in (field, part)]


def job(data: bytes) -> None:
    """A job's hash, and all that can be asked of it."""
    one: Job[Any, Any] = Job(_queue, job_record("1", _listed(data)))
    _ = one.options, one.progress, one.stack_trace, one.timestamp, one.processed_at, one.finished_at, one.failed_reason, repr(one)
    for part in ("data", "return_value"):
        try:
            getattr(one, part)
        except InvalidPayloadError as error:
            assert "'" in str(error)


def options(data: bytes) -> None:
    """The `opts` of a job, as the reader and as the worker see them."""
    decode_options(data)
    try:
        stored_options(data)
        stored_expiry_ms(data)
    except (OverflowError, ValueError):
        pass  # the policy knows
    policy = _policies.of(data)
    assert policy.attempts >= 0


def payload(data: bytes) -> None:
    """JSON of others as a type's value."""
    for hint in (Any, int, dict[str, list[int]], None):
        try:
            PayloadType[Any](hint).decode(data, "n", "1")
        except InvalidPayloadError as error:
            assert error.job_id == "1"
    from_json_or(data, None)
    assert id_bytes(id_text(data)) == data


def events(data: bytes) -> None:
    """An entry of the events stream: never an error."""
    texts = [part.decode("utf-8", "surrogateescape") for part in [*data.split(b"\0"), *[b""] * 20][:20]]
    for name in ("added", "waiting", "delayed", "active", "progress", "completed", "failed", "retries-exhausted", "cleaned", "removed"):
        keys = ("jobId", "prev", "returnvalue", "failedReason", "delay", "attemptsMade", "count", "data", "name")
        read_event("1-0", {"event": name} | dict(zip(keys, texts, strict=False)))
    read_event("1-0", dict(zip(texts[::2], texts[1::2], strict=True)))


def letter(data: bytes) -> None:
    """A dead letter, or what lies among them."""
    read_letter(Job(_queue, JobRecord("1", FAILED_JOB, data, b"{}")))


def cron(data: bytes) -> None:
    """A pattern, with a zone behind a zero byte."""
    pattern, _, zone = data.decode("utf-8", "replace").partition("\0")
    try:
        Cron(pattern, zone or "UTC").next_ms(1_700_000_000_000)
    except InvalidCronError as error:
        assert error.field


def address(data: bytes) -> None:
    """An address: refused, or read, and never with its password in any text."""
    text = data.decode("utf-8", "replace")
    for url in (text, f"redis://user:{SECRET}@{text}", f"redis://:{SECRET}{text}", f"redis+sentinel://:{SECRET}@{text}"):
        try:
            read = ServerAddress(url)
            shown = str(read) + repr(read)
            if SECRET in read.connection_options.get("password", ""):
                quoted = f"unknown command 'AUTH' '{read.connection_options['password']}'"
                assert SECRET not in read.hide(quoted), quoted
                assert read.is_told_by(ValueError(quoted)), quoted
        except InvalidRedisUrlError as error:
            shown = str(error) + repr(error)
        if SECRET in url and "@" in url:
            assert SECRET not in shown.partition("@")[0], shown


def redaction(data: bytes) -> None:
    """Texts around a secret: it never survives."""
    text = data.decode("utf-8", "replace")
    for read in (redact_text, redact_traceback, redact_url, redact):
        read(text)
    redact({text: [text, {text: text}]})
    for shown in (
        redact_url(f"redis://user:{SECRET}@{text}"),
        str(redact({"password": SECRET + text})),
        str(redact({"x": {"api_key": SECRET}, "t": text})),
    ):
        assert SECRET not in shown or SECRET in text, shown


def durations(data: bytes) -> None:
    """A duration."""
    try:
        assert to_ms(data.decode("utf-8", "replace"), "delay") >= 0
    except (InvalidDurationError, InvalidOptionError) as error:
        assert error.option == "delay"


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    one.__name__: one for one in (job, options, payload, events, letter, cron, address, redaction, durations)
}
