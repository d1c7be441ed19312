"""An application's life: in which order it starts and stops, what it bounds, and what an error in one step does to the others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, cast

import pytest

import toril.application
import toril.worker.worker
from toril import (
    Application,
    DynamicModule,
    InjectQueue,
    Job,
    Queue,
    QueueModule,
    Worker,
    WorkerFactory,
    module,
    process,
    processor,
    provide,
)
from toril.application import ApplicationState
from toril.di import GraphErrors
from toril.errors import InvalidDurationError, InvalidOptionError, QueueClosedError, ServerUnreachableError
from toril.testing import eventually


class Notes:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.app: Application | None = None

    def add(self, line: str) -> None:
        self.lines.append(line)


class Resource:
    """What a generator opens."""


async def resource(notes: Notes) -> AsyncIterator[Resource]:
    notes.add("open")
    yield Resource()
    notes.add("close")


class Hooks:
    """Notes each hook with what still works then."""

    def __init__(self, notes: Notes, resource: Resource, images: Annotated[Queue, InjectQueue("images")]) -> None:
        self.notes, self.images = notes, images

    async def note(self, hook: str) -> None:
        try:
            await self.images.count()
            server = "server"
        except QueueClosedError:
            server = "no server"
        assert self.notes.app is not None
        self.notes.add(f"{hook}: {server}, workers {'/'.join(worker.state.value for worker in self.notes.app.workers)}")

    async def on_module_init(self) -> None:
        await self.note("init")

    async def on_application_bootstrap(self) -> None:
        await self.note("bootstrap")

    async def on_module_destroy(self) -> None:
        await self.note("destroy")

    async def before_application_shutdown(self, signal: str | None) -> None:
        await self.note(f"before {signal}")

    async def on_application_shutdown(self, signal: str | None) -> None:
        await self.note(f"shutdown {signal}")


@processor("images")
class Images:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @process("quick")
    async def quick(self, job: Job) -> str:
        return "done"

    @process("waits")
    async def waits(self, job: Job) -> str:
        self.notes.started.set()
        await self.notes.may_end.wait()
        self.notes.add("handler ended")
        return "done"


Root = Callable[..., DynamicModule]


@pytest.fixture
def root(toril_server_url: str, prefix: str) -> Root:
    """Makes a root module on the test's server."""

    def make(*providers: object, imports: Sequence[object] = (), url: str = toril_server_url) -> DynamicModule:
        @module()
        class AppModule: ...

        queues = QueueModule.register_queue("images", "mails")
        return DynamicModule(
            AppModule, imports=[QueueModule.for_root(url=url, prefix=prefix), queues, *imports], providers=[Notes, *providers]
        )

    return make


RESOURCE = provide(Resource, use_factory=resource)


async def create(module: DynamicModule, **options: Any) -> Application:  # noqa: ANN401 -- passed on
    app = await WorkerFactory.create(module, **options)
    app.get(Notes).app = app
    return app


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_row_18_the_steps_of_a_life_come_in_order(root: Root) -> None:
    app = await create(root(RESOURCE, Hooks, Images))
    notes = app.get(Notes)
    states = [app.state]
    async with app:
        states.append(app.state)
        assert [worker.is_ready for worker in app.workers] == [True]
        await app.queue("images").add("waits", {})
        await notes.started.wait()
        app.ask_to_stop("SIGTERM")
        assert not app.is_ready
        await eventually(lambda: _is(app.workers[0].state.value, "stopping"))
        assert app.state is ApplicationState.STOPPING
        notes.may_end.set()
    states.append(app.state)
    assert notes.lines == [
        "open",
        "init: server, workers new",
        "bootstrap: server, workers new",
        "handler ended",
        "destroy: server, workers stopped",
        "before SIGTERM: server, workers stopped",
        "shutdown SIGTERM: no server, workers stopped",
        "close",
    ]
    assert states == [ApplicationState.CREATED, ApplicationState.RUNNING, ApplicationState.STOPPED]
    assert app.left_behind == 0


def _is(found: object, wanted: object) -> None:
    assert found == wanted


async def test_an_application_that_was_only_created_is_closed_in_order_too(root: Root) -> None:
    app = await create(root(RESOURCE, Hooks, Images))
    await app.stop()
    assert app.state is ApplicationState.STOPPED
    with pytest.raises(QueueClosedError):
        await app.start()


async def test_a_second_stop_and_a_concurrent_one_wait_for_the_first(root: Root) -> None:
    app = await create(root(RESOURCE, Hooks, Images))
    notes = app.get(Notes)
    await app.start()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(_stopped(app))
    await app.stop()
    assert notes.lines.count("close") == 1


async def _stopped(app: Application) -> None:
    await app.stop()
    assert app.state is ApplicationState.STOPPED


async def test_stop_from_elsewhere_ends_run_in_order(root: Root) -> None:
    app = await create(root(RESOURCE, Hooks, Images))
    notes = app.get(Notes)
    running = asyncio.create_task(app.run())
    await eventually(lambda: _is(app.is_ready, True))
    await app.stop()
    assert notes.lines[-1] == "close"
    await running


async def test_it_runs_once(root: Root) -> None:
    app = await create(root(Images))
    async with app:
        with pytest.raises(QueueClosedError):
            await app.run()
        with pytest.raises(QueueClosedError):
            await app.start()
        assert app.is_ready, "the second call has done it no harm"


async def test_a_start_that_is_cancelled_closes_everything(root: Root) -> None:
    class Hangs:
        def __init__(self, notes: Notes, resource: Resource) -> None:
            self.notes = notes

        async def on_module_init(self) -> None:
            self.notes.started.set()
            await asyncio.Event().wait()

    app = await create(root(RESOURCE, Hangs, Images))
    notes = app.get(Notes)
    starting = asyncio.create_task(app.start())
    await notes.started.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert notes.lines == ["open", "close"]
    assert app.state is ApplicationState.STOPPED


# ── signals ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_run_in_order_and_its_name_reaches_the_hooks(root: Root, sent: signal.Signals) -> None:
    app = await create(root(RESOURCE, Hooks, Images))
    notes = app.get(Notes)
    running = asyncio.create_task(app.run())
    await eventually(lambda: _is(app.is_ready, True))
    os.kill(os.getpid(), sent)
    await running
    assert f"before {sent.name}: server, workers stopped" in notes.lines
    assert app.state is ApplicationState.STOPPED


async def test_a_second_signal_waits_for_no_job_and_puts_it_back_without_an_attempt(root: Root) -> None:
    app = await create(root(Images), shutdown_timeout="1h")
    notes = app.get(Notes)
    running = asyncio.create_task(app.run())
    await eventually(lambda: _is(app.is_ready, True))
    job = await app.queue("images").add("waits", {})
    await notes.started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: _is(app.workers[0].state.value, "stopping"))
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    again = await create(root(Images))
    try:
        found = await again.queue("images").get_job(job.id)
        assert (await found.get_state(), found.attempts_made) == ("waiting", 0)
    finally:
        await again.stop()


# ── bounds and errors ─────────────────────────────────────────────────────────────────────────────────────────


class Hangs:
    def __init__(self, resource: Resource) -> None: ...

    async def on_module_destroy(self) -> None:
        await asyncio.Event().wait()


async def test_a_hook_of_stopping_that_hangs_is_bounded_and_the_rest_goes_on(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toril.application, "STOP_STEP_LIMIT_MS", 50)
    app = await create(root(RESOURCE, Hooks, Hangs, Images))
    notes = app.get(Notes)
    await app.start()
    with pytest.raises(ExceptionGroup) as caught:
        await app.stop()
    (error,) = caught.value.exceptions
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("on_module_destroy of Hangs")
    assert "took longer than 50ms and was cancelled" in str(error)
    assert [line.partition(":")[0] for line in notes.lines[-4:]] == ["destroy", "before None", "shutdown None", "close"]


async def test_a_hook_of_starting_that_hangs_is_bounded(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __init__(self, resource: Resource) -> None: ...

        async def on_application_bootstrap(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(toril.application, "START_STEP_LIMIT_MS", 50)
    app = await create(root(RESOURCE, Slow, Images))
    notes = app.get(Notes)
    with pytest.raises(TimeoutError, match="on_application_bootstrap of Slow"):
        await app.start()
    assert notes.lines == ["open", "close"]


class FailsAtEnd:
    def __init__(self, resource: Resource) -> None: ...

    def on_module_destroy(self) -> None:
        raise LookupError("first")

    async def on_application_shutdown(self) -> None:
        raise LookupError("second")


async def test_errors_of_stopping_stop_nothing_and_come_out_together(root: Root) -> None:
    app = await create(root(RESOURCE, Hooks, FailsAtEnd, Images))
    notes = app.get(Notes)
    await app.start()
    for _ in range(2):  # whoever asks is told
        with pytest.raises(ExceptionGroup) as caught:
            await app.stop()
        assert [str(error) for error in caught.value.exceptions] == ["first", "second"]
    assert [line.partition(":")[0] for line in notes.lines[-4:]] == ["destroy", "before None", "shutdown None", "close"]


async def test_an_error_of_a_block_is_not_hidden_by_errors_of_stopping(root: Root) -> None:
    app = await create(root(RESOURCE, FailsAtEnd, Images))
    with pytest.raises((LookupError, ExceptionGroup)) as caught:
        async with app:
            raise LookupError("of the block")
    first: BaseException | None = caught.value
    texts: list[str] = []
    while first is not None:
        texts.append(str(first))
        first = first.__context__
    assert "of the block" in texts


async def test_a_hook_of_starting_that_fails_closes_what_exists_and_no_worker_claims(root: Root) -> None:
    class Fails:
        def __init__(self, resource: Resource) -> None: ...

        def on_module_init(self) -> None:
            raise LookupError("no")

    app = await create(root(RESOURCE, Fails, Images))
    notes, worker = app.get(Notes), app.workers[0]
    with pytest.raises(LookupError, match="no") as caught:
        await app.start()
    assert any("on_module_init of Fails" in note for note in caught.value.__notes__)
    assert notes.lines == ["open", "close"]
    assert worker.state.value == "new"
    assert app.state is ApplicationState.STOPPED


async def test_a_constructor_that_fails_closes_what_exists(root: Root) -> None:
    seen: list[Notes] = []

    class Fails:
        def __init__(self, resource: Resource, notes: Notes) -> None:
            seen.append(notes)
            raise LookupError("no")

    with pytest.raises(LookupError):
        await create(root(RESOURCE, Fails, Images))
    assert seen[0].lines == ["open", "close"]


async def test_a_worker_that_breaks_down_ends_the_application_with_its_error(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await create(root(RESOURCE, Hooks, Images, Mails))
    notes = app.get(Notes)
    running = asyncio.create_task(app.run())
    await eventually(lambda: _is(app.is_ready, True))
    _break(app.workers[0], monkeypatch)
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert {repr(error) for error in leaves(caught.value)} == {"LookupError('broken')"}
    assert all(worker.state.value == "stopped" for worker in app.workers)
    assert notes.lines[-1] == "close"
    assert app.state is ApplicationState.STOPPED


async def test_a_worker_that_breaks_down_ends_run_until_idle_with_its_error(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await create(root(Images, Mails))
    notes = app.get(Notes)
    monkeypatch.setattr(toril.worker.worker, "WRITE_TIMEOUT_MS", 50)
    await app.queue("images").add("waits", {})
    running = asyncio.create_task(app.run_until_idle())
    await notes.started.wait()
    _break(app.workers[0], monkeypatch)
    notes.may_end.set()
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert {repr(error) for error in leaves(caught.value)} == {"LookupError('broken')"}


def leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inside = cast("tuple[BaseException, ...]", error.exceptions)
    return [leaf for one in inside for leaf in leaves(one)]


def _break(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the worker's next look at its queue a mistake of ours: there is no honest way to one."""

    def broken(*_args: object, **_named: object) -> None:
        raise LookupError("broken")

    monkeypatch.setattr(worker.queue.commands, "turn", broken)
    worker.look_again()


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_does_not_answer_in_time_is_an_error_and_what_exists_is_closed(root: Root, unused_tcp_port: int) -> None:
    seen: list[Notes] = []

    class Sees:
        def __init__(self, notes: Notes, resource: Resource) -> None:
            seen.append(notes)

    url = f"redis://:s3cret@127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ServerUnreachableError) as caught:
        await create(root(RESOURCE, Sees, Images, url=url), connect_timeout="200ms")
    assert str(unused_tcp_port) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert seen[0].lines == ["open", "close"]


async def test_bad_durations_are_found_before_anything_is_made(root: Root) -> None:
    for option in ("connect_timeout", "shutdown_timeout"):
        with pytest.raises(InvalidDurationError) as caught:
            await create(root(Images), **{option: 5})
        assert caught.value.option == option


async def test_nothing_is_made_when_the_graph_is_wrong(root: Root) -> None:
    made: list[str] = []

    class Service:
        def __init__(self) -> None:
            made.append("made")

    @processor("imgaes")
    class Typo:
        @process()
        async def run(self, job: Job) -> None: ...

    with pytest.raises(GraphErrors, match="did you mean 'images'"):
        await create(root(Service, Typo))
    assert made == []


# ── which queues ──────────────────────────────────────────────────────────────────────────────────────────────


@processor("mails", concurrency=2)
class Mails:
    @process()
    async def send(self, job: Job) -> None: ...


async def test_without_a_filter_every_queue_with_a_processor_has_a_worker(root: Root) -> None:
    app = await create(root(Images, Mails), worker_options={"lock_duration": "11s"}, shutdown_timeout="3s")
    try:
        found = {worker.queue.name: worker.options for worker in app.workers}
        assert set(found) == {"images", "mails"}
        assert (found["mails"].concurrency, found["mails"].lock_ms, found["mails"].shutdown_timeout_ms) == (2, 11_000, 3_000)
    finally:
        await app.stop()


async def test_a_filter_leaves_the_others_out(root: Root) -> None:
    async with await create(root(Images, Mails), queues=["mails"]) as app:
        assert [worker.queue.name for worker in app.workers] == ["mails"]
        assert app.queue("images").name == "images", "it can still be added to"


async def test_no_queue_at_all_makes_a_process_that_only_adds(root: Root) -> None:
    async with await create(root(Images, Mails), queues=[]) as app:
        assert app.workers == ()
        assert app.is_ready


async def test_a_filter_with_an_unknown_queue_names_what_is_near(root: Root) -> None:
    with pytest.raises(InvalidOptionError, match="did you mean 'images'"):
        await create(root(Images), queues=["imgaes"])


async def test_a_filter_with_a_queue_that_nobody_serves_says_which_are_served(root: Root) -> None:
    with pytest.raises(InvalidOptionError, match="served are: images"):
        await create(root(Images), queues=["mails"])


# ── until idle ────────────────────────────────────────────────────────────────────────────────────────────────


@processor("images", concurrency=3)
class Ping:
    def __init__(self, mails: Annotated[Queue, InjectQueue("mails")], notes: Notes) -> None:
        self.mails, self.notes = mails, notes

    @process()
    async def ping(self, job: Job[int, None]) -> None:
        self.notes.add(f"ping {job.data}")
        if job.data:
            await self.mails.add("pong", job.data - 1)


@processor("mails", concurrency=3)
class Pong:
    def __init__(self, images: Annotated[Queue, InjectQueue("images")], notes: Notes) -> None:
        self.images, self.notes = images, notes

    @process()
    async def pong(self, job: Job[int, None]) -> None:
        self.notes.add(f"pong {job.data}")
        if job.data:
            await self.images.add("ping", job.data - 1)


async def test_until_idle_follows_two_queues_that_feed_each_other_to_the_end(root: Root) -> None:
    app = await create(root(Ping, Pong))
    notes = app.get(Notes)
    for _ in range(3):
        await app.queue("images").add("ping", 40)
    delayed = await app.queue("images").add("ping", 0, delay="1h")
    await app.run_until_idle()
    assert len(notes.lines) == 3 * 41
    assert notes.lines[-1] == "ping 0"
    assert app.state is ApplicationState.STOPPED
    again = await create(root(Ping, Pong))
    try:
        assert await again.queue("images").get_job_counts("delayed") == {"delayed": 1}
        assert (await again.queue("images").get_job(delayed.id)).id == delayed.id
    finally:
        await again.stop()


async def test_until_idle_with_nothing_to_do_ends(root: Root) -> None:
    await (await create(root(Ping, Pong))).run_until_idle()


async def test_until_idle_ends_at_a_signal_though_jobs_still_run(root: Root) -> None:
    app = await create(root(Images))
    notes = app.get(Notes)
    await app.queue("images").add("waits", {})
    running = asyncio.create_task(app.run_until_idle())
    await notes.started.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await eventually(lambda: _is(app.workers[0].state.value, "stopping"))
    notes.may_end.set()
    await running
    assert notes.lines == ["handler ended"]
