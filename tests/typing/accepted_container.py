"""What both type checkers must accept of modules, providers and what is asked for; `rejected.py` has the opposite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NewType, Protocol, TypeVar, assert_type

from typing_extensions import Unpack

from toril import (
    INQUIRER,
    Application,
    ApplicationContext,
    DynamicModule,
    Inject,
    JobRef,
    Lazy,
    ManyToken,
    ModuleRef,
    OptionWays,
    Scope,
    Token,
    WorkerFactory,
    forward_ref,
    injectable,
    module,
    option_providers,
    provide,
)
from toril.testing import Test

RowT = TypeVar("RowT")


class Mailer(Protocol):
    def send(self, to: str) -> None: ...


class Smtp:
    def send(self, to: str) -> None: ...


class Table(Generic[RowT]): ...


@dataclass(frozen=True)
class MailOptions:
    url: str


UserId = NewType("UserId", int)
RETRIES = Token[int]("RETRIES")
MAILER = Token[Mailer]("MAILER")
MAIL_OPTIONS = Token[MailOptions]("MAIL_OPTIONS")
MAILERS = ManyToken[Mailer]("MAILERS")


# ── providers ─────────────────────────────────────────────────────────────────────────────────────────────────


def made() -> int:
    return 1


async def awaited() -> int:
    return 1


def closed() -> Iterator[int]:
    yield 1


async def closed_async() -> AsyncIterator[int]:
    yield 1


provide(RETRIES, use_value=3)
provide(RETRIES, use_factory=made)
provide(RETRIES, use_factory=awaited, scope=Scope.JOB)
provide(RETRIES, use_factory=closed, inject=[])
provide(RETRIES, use_factory=closed_async)
provide(RETRIES, use_existing="retries")
provide(MAILER, use_class=Smtp)
provide(MAILER, use_value=Smtp())
provide(MAILERS, use_class=Smtp)
provide(Mailer, use_class=Smtp)
provide(Smtp, use_value=Smtp())
provide(UserId, use_value=UserId(7))
provide("text", use_value=3)
provide(Table[int], use_class=Table)


@injectable(scope=Scope.TRANSIENT)
class Asks:
    def __init__(
        self,
        mailer: Mailer,
        retries: Annotated[int, Inject(RETRIES)],
        mailers: Annotated[Sequence[Mailer], Inject(MAILERS)],
        later: Lazy[Mailer],
        maybe: Table[int] | None,
        job: JobRef,
        asking: Annotated[object, Inject(INQUIRER)],
        partner: Annotated[Partner, forward_ref(lambda: Partner)],
    ) -> None:
        assert_type(retries, int)
        assert_type(later.get(), Mailer)
        assert_type(maybe, Table[int] | None)


class Partner:
    def __init__(self, asks: Asks) -> None: ...


# ── modules ───────────────────────────────────────────────────────────────────────────────────────────────────


@module(providers=[Smtp], exports=[Smtp])
class MailModule:
    @staticmethod
    def for_root_async(*, imports: Sequence[object] = (), **ways: Unpack[OptionWays[MailOptions]]) -> DynamicModule:
        return DynamicModule(MailModule, key="for_root", options=ways, imports=imports, providers=option_providers(MAIL_OPTIONS, **ways))


class MakesOptions:
    async def create_options(self) -> MailOptions:
        return MailOptions("smtp://localhost")


def options(retries: int) -> MailOptions:
    return MailOptions(f"smtp://localhost?retries={retries}")


MailModule.for_root_async(use_factory=options, inject=[RETRIES])
MailModule.for_root_async(use_class=MakesOptions)
MailModule.for_root_async(use_existing=MakesOptions)


# ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────


async def asking(ref: ModuleRef) -> None:
    assert_type(ref.get(Smtp), Smtp)
    assert_type(ref.get(RETRIES), int)
    assert_type(await ref.resolve(MAILER), Mailer)
    async with WorkerFactory.create_application_context(MailModule) as app:
        assert_type(app, Application)
        assert_type(app.ctx, ApplicationContext)
        assert_type(app.get(RETRIES), int)
        assert_type(app.get(Smtp), Smtp)
        assert_type(app.ctx.get_all(MAILERS), list[Mailer])
        assert_type(app.ctx.select(MailModule), ModuleRef)
        assert_type(await app.ctx.resolve(Smtp), Smtp)
        mailer: Mailer = app.get(Mailer)  # a Protocol is no type[T] for mypy, which says Any
        mailer.send("ann@example.com")
        anything: Any = app.get("text")
        assert anything
    assert_type(await WorkerFactory.create_application_context(MailModule), Application)


async def testing() -> None:
    builder = Test.create_testing_module(imports=[MailModule]).override_provider(Smtp).use_class(Smtp)
    async with builder.override_module(MailModule).use_module(MailModule).use_mocker(lambda token: None).compile() as t:
        assert_type(t.get(RETRIES), int)
