"""An application inside a Starlette or FastAPI service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from toril import DynamicModule, InjectQueue, Job, Queue, QueueModule, WorkerFactory, module, process, processor, provide
from toril.web import NotMountedError, application_of, injected, mount


class Notes:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class EmailService:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emails")], notes: Notes) -> None:
        self.emails, self.notes = emails, notes

    async def send(self, to: str) -> str:
        return (await self.emails.add("welcome", to)).id

    async def on_module_init(self) -> None:
        self.notes.lines.append("modules start")

    async def on_module_destroy(self) -> None:
        self.notes.lines.append("modules stop")


@processor("emails")
class EmailProcessor:
    @process("welcome")
    async def welcome(self, job: Job[str, str]) -> str:
        return f"sent to {job.data}"


@module()
class AppModule: ...


Root = Callable[[Notes], DynamicModule]


@pytest.fixture
def root(toril_server_url: str, prefix: str) -> Root:
    def make(notes: Notes) -> DynamicModule:
        imports = [QueueModule.for_root(url=toril_server_url, prefix=prefix), QueueModule.register_queue("emails")]
        return DynamicModule(AppModule, imports=imports, providers=[provide(Notes, use_value=notes), EmailService, EmailProcessor])

    return make


def fast_api(lifespan: Any = None) -> FastAPI:  # noqa: ANN401  # as FastAPI takes it
    web = FastAPI(lifespan=lifespan)

    @web.post("/emails/{to}")
    async def send(to: str, emails: Annotated[EmailService, Depends(injected(EmailService))]) -> str:
        return await emails.send(to)

    return web


@asynccontextmanager
async def served(web: Any) -> AsyncGenerator[AsyncClient]:  # noqa: ANN401  # Starlette or FastAPI
    async with web.router.lifespan_context(web), AsyncClient(transport=ASGITransport(web), base_url="http://test") as client:
        yield client


async def test_a_web_process_adds_jobs_with_the_modules_of_the_workers(root: Root) -> None:
    web = fast_api()
    mount(web, root(Notes()))
    async with served(web) as client:
        answer = await client.post("/emails/ada")
        assert answer.status_code == 200
        app = application_of(web)
        assert app.workers == (), "it only adds"
        job = await app.queue("emails").get_job(answer.json())
        assert await job.get_state() == "waiting"
        async with WorkerFactory.create(root(Notes()), roles=["worker"]):
            assert await job.result(timeout="10s") == "sent to ada"


async def test_modules_start_before_the_services_own_lifespan_and_stop_after_it(root: Root) -> None:
    notes = Notes()

    @asynccontextmanager
    async def own(web: FastAPI) -> AsyncGenerator[dict[str, str]]:
        notes.lines.append(f"own begins, {type(application_of(web)).__name__} is there")
        yield {"own": "state"}
        notes.lines.append("own ends")

    web = fast_api(own)

    @web.get("/own")
    async def look(request: Request) -> str:
        own_state: str = request.state.own
        return own_state

    mount(web, root(notes))
    async with web.router.lifespan_context(web) as state:
        assert state == {"own": "state"}
    assert notes.lines == ["modules start", "own begins, Application is there", "own ends", "modules stop"]
    with pytest.raises(NotMountedError, match="its lifespan doesn't run, or has ended"):
        application_of(web)


async def test_a_service_that_fails_to_start_stops_the_modules(root: Root) -> None:
    notes = Notes()

    @asynccontextmanager
    async def own(web: FastAPI) -> AsyncGenerator[None]:
        if web.title:
            raise OSError("no database")
        yield

    web = fast_api(own)
    mount(web, root(notes))
    with pytest.raises(OSError, match="no database"):
        async with web.router.lifespan_context(web):
            pass
    assert notes.lines == ["modules start", "modules stop"]


async def test_starlette_works_too_and_may_run_workers(root: Root) -> None:
    async def send(request: Request) -> JSONResponse:
        app = application_of(request.app)
        job = await app.queue("emails").add("welcome", "bob")
        return JSONResponse(await job.result(timeout="10s"))

    web = Starlette(routes=[Route("/", send)])
    mount(web, root(Notes()), roles=["producer", "worker"])
    async with served(web) as client:
        assert (await client.get("/")).json() == "sent to bob"


def test_what_is_not_mounted_or_twice_is_told(root: Root) -> None:
    web = fast_api()
    with pytest.raises(NotMountedError, match=r"call mount\(web, AppModule\)"):
        application_of(web)
    mount(web, root(Notes()))
    with pytest.raises(NotMountedError, match="mount one root module"):
        mount(web, root(Notes()))
    with pytest.raises(NotMountedError, match="run it with a server that runs its lifespan"):
        application_of(web)
