"""An application inside a web process: what a Starlette or FastAPI service adds jobs with, from the same modules as its workers.

    web = FastAPI()
    mount(web, AppModule)

    @web.post("/users")
    async def register(user: NewUser, emails: Annotated[EmailService, Depends(injected(EmailService))]) -> None:
        await emails.send_welcome_email(user)

Starlette itself is needed by `injected` only (extra `dashboard`, or what the service has installed).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, overload

from toril.application import Application, WorkerFactory
from toril.di import DynamicModule, Overrides, Token
from toril.di.overrides import NO_OVERRIDES
from toril.durations import Duration
from toril.errors import ConfigurationError
from toril.modules.roles import Role

T = TypeVar("T")

_STATE: Final = "toril"
_ADDS_ONLY: Final[tuple[Role, ...]] = ("producer",)


class NotMountedError(ConfigurationError):
    """A web application has no running application of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"this web application can't reach its modules: {self.reason}"


class WebApplication(Protocol):
    """Starlette, FastAPI, or what has the same two attributes."""

    @property
    def router(self) -> Any: ...  # noqa: ANN401 -- has a `lifespan_context`, which takes the web application

    @property
    def state(self) -> Any: ...  # noqa: ANN401 -- takes any attribute


def mount(
    web: WebApplication,
    root: type | DynamicModule,
    *,
    roles: Collection[Role] = _ADDS_ONLY,
    queues: Collection[str] | None = None,
    overrides: Overrides = NO_OVERRIDES,
    shutdown_timeout: Duration | None = None,
    connect_timeout: Duration | None = None,
) -> None:
    """Let an application live as long as a web application does: started before its own lifespan, stopped after it.

    Signals are the web server's: when it stops, so does the application, in its own order.

    Args:
        root: the root module.
        roles: what this process does besides answering requests; by default it only adds jobs.
        queues, overrides, shutdown_timeout, connect_timeout: as in `WorkerFactory.create`, which also says what is raised at start.

    Raises:
        NotMountedError: one is mounted already.
    """
    if getattr(web.state, _STATE, None) is not None:
        raise NotMountedError("it has some already: mount one root module, which imports the others")
    setattr(web.state, _STATE, _NotStarted())
    inner: Any = web.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: Any) -> AsyncGenerator[Any]:  # noqa: ANN401 -- the web application; a state, if its own lifespan has one
        application = WorkerFactory.create(
            root,
            roles=roles,
            queues=queues,
            overrides=overrides,
            shutdown_timeout=shutdown_timeout,
            connect_timeout=connect_timeout,
        )
        async with application as running:
            setattr(web.state, _STATE, running)
            try:
                async with inner(started) as state:
                    yield state
            finally:
                setattr(web.state, _STATE, _NotStarted())

    web.router.lifespan_context = lifespan


def application_of(web: WebApplication) -> Application:
    """The running application that is mounted.

    Raises:
        NotMountedError: none is, or its lifespan doesn't run.
    """
    found: object = getattr(web.state, _STATE, None)
    if isinstance(found, Application):
        return found
    if isinstance(found, _NotStarted):
        hint = "run it with a server that runs its lifespan (a TestClient: in a `with` block)"
        raise NotMountedError(f"its lifespan doesn't run, or has ended: {hint}")
    raise NotMountedError("none are mounted: call mount(web, AppModule) before it starts")


@overload
def injected(token: Token[T]) -> Callable[..., T]: ...
@overload
def injected(token: type[T]) -> Callable[..., T]: ...
@overload
def injected(token: object) -> Callable[..., Any]: ...
def injected(token: object) -> Callable[..., Any]:
    """A FastAPI dependency that gives an instance from the container: `Annotated[EmailService, Depends(injected(EmailService))]`.

    For singletons; the request then raises what `Application.get` does.
    """
    from starlette.requests import HTTPConnection

    def give(connection: Any) -> Any:  # noqa: ANN401 -- as the token, so the result
        return application_of(connection.app).get(token)

    give.__annotations__ = {"connection": HTTPConnection}  # what FastAPI looks at
    return give


class _NotStarted:
    """Stands in the state of a web application whose lifespan doesn't run."""
