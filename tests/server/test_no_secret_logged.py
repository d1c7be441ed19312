"""Secrets of payloads, of settings and of whatever handlers raise and write stand in no line of a log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from pydantic import BaseModel, SecretStr, field_serializer

from toril import Job, JobDef, Queue, Worker, handler
from toril.modules.settings import TorilSettings
from toril.telemetry import JobLogger, LogFormat, configure_logging
from toril.wire.address import ServerAddress

SECRET: Final = "hunter2-hunter2"
SETTINGS: Final = TorilSettings(redis_url=SecretStr(f"redis://app:{SECRET}@db.example.com:6379/1"))


class Login(BaseModel):
    """Its secret travels in plain, on purpose."""

    user: str
    password: SecretStr

    @field_serializer("password", when_used="json")
    def in_plain(self, value: SecretStr) -> str:
        return value.get_secret_value()


LOGIN: Final = JobDef[Login, None]("login")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.reset_defaults()


def url() -> str:
    assert SETTINGS.redis_url is not None
    return SETTINGS.redis_url.get_secret_value()


async def tell_everything(job: Job[Login, None]) -> None:
    log, plain = JobLogger(), logging.getLogger("app")
    log.info("login", data=job.data, job=job, settings=SETTINGS, password=SECRET, nested={"smtp": [{"authToken": SECRET}]}, url=url())
    log.warning(f"could not reach {url()} with password={SECRET} and token: '{SECRET}'")
    plain.warning("connecting to %s as %s, password=%s, headers %r", url(), job.data, SECRET, {"Authorization": f"Bearer {SECRET}"})
    structlog.stdlib.get_logger("app").warning("login", api_key=SECRET, settings=SETTINGS, data=job.data)
    try:
        raise ConnectionError(f"no route to {url()}")
    except ConnectionError as error:
        raise RuntimeError(f"login of {job.data!r} with {SECRET} failed (password={SECRET})") from error


def breaks_down(*_: object) -> None:
    raise ValueError(f"the listener knows {SECRET} and {url()}")


async def run(server_url: str, prefix: str) -> None:
    ServerAddress(url())  # the application has connected, so that its password is known
    async with (
        Queue("q", prefix=prefix, url=server_url) as queue,
        Worker(queue, [handler(tell_everything, LOGIN)]) as worker,
    ):
        worker.on("failed", breaks_down)
        worker.on("active", breaks_down)
        await queue.add(LOGIN, Login(user="ada", password=SecretStr(SECRET)), attempts=2)
        await worker.wait_until_idle()


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_reaches_the_configured_logs(toril_server_url: str, prefix: str, log_format: LogFormat) -> None:
    stream = io.StringIO()
    configure_logging(log_format=log_format, level="debug", stream=stream)
    await run(toril_server_url, prefix)
    text = stream.getvalue()
    assert text.count("login") > 6
    assert "the job failed for good" in text
    assert text.count("listener failed") >= 2  # the same again is counted
    assert SECRET not in text


async def test_the_lines_of_the_library_hide_them_in_an_application_that_configures_nothing(
    toril_server_url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "toril")
    await run(toril_server_url, prefix)
    text = "\n".join(line for line in caplog.text.splitlines() if " app:" not in line)  # its own lines are its own
    assert "the job failed for good" in text
    assert "the listener knows ***" in text
    assert SECRET not in text
