"""What both type checkers must accept: every way to write a handler, and what comes out of a queue for what goes in.

Nobody runs this file; `make check` reads it. What they must refuse stands in `rejected.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol, assert_type

from dependency_injector.containers import DeclarativeContainer
from pydantic import BaseModel

from toril import (
    APP_FILTER,
    APP_INTERCEPTOR,
    Application,
    CallNext,
    ContainerModule,
    DiscoveryService,
    Inject,
    InjectQueue,
    Job,
    JobDef,
    JobExecutionContext,
    JobLogger,
    ManyToken,
    ModuleRef,
    Queue,
    Recovered,
    Token,
    Worker,
    WorkerFactory,
    catch,
    handler,
    module,
    process,
    processor,
    provide,
    use_filters,
    use_interceptors,
)
from toril.testing import Test, TestingModule


class Order(BaseModel):
    number: int


class Receipt(BaseModel):
    paid: bool


class Invoice(Receipt):
    text: str


class Ledger:
    """Something that is injected."""


PAY = JobDef[Order, Receipt]("pay")
REMIND = JobDef[Order, None]("remind")
COUNT = JobDef[None, int]("count")
LISTED = JobDef[list[Order], dict[str, int]]("listed")
ANY = JobDef("any")
CURRENCY = Token[str]("CURRENCY")


def report(job: Job[Order, Receipt]) -> Receipt:
    job.sync.update_progress({"done": 1})
    job.sync.update_data(Order(number=2))
    assert_type(job.sync.log("half of it"), int)
    return Receipt(paid=True)


# ── methods ───────────────────────────────────────────────────────────────────────────────────────────────────


@processor("orders")
class ByDefinition:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @process(PAY)
    async def job_first(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=job.data.number > 0)

    @process(PAY, concurrency=2, timeout="5s")
    async def data_first(self, data: Order) -> Receipt:
        return Receipt(paid=data.number > 0)

    @process(PAY)
    def in_a_thread(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=job.data.number > 0)

    @process(PAY)
    def data_in_a_thread(self, data: Order) -> Receipt:
        return Receipt(paid=data.number > 0)

    @process(PAY)
    async def injected(self, job: Job[Order, Receipt], ledger: Ledger, log: JobLogger, limit: int = 3) -> Receipt: ...  # type: ignore[empty-body]

    @process(PAY)
    async def keywords(
        self,
        data: Order,
        ledger: Ledger | None,
        *,
        job: Job[Order, Receipt],
        currency: Annotated[str, Inject(CURRENCY)],
        orders: Annotated[Queue, InjectQueue("orders")],
    ) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)
    async def a_subclass_of_the_result(self, job: Job[Order, Receipt]) -> Invoice:
        return Invoice(paid=True, text=str(job.id))

    @process(PAY)
    async def a_base_class_of_the_data(self, data: BaseModel) -> Receipt:
        return Receipt(paid=bool(data))

    @process(PAY)
    async def job_without_types(self, job: Job) -> Receipt:
        return Receipt(paid=bool(job.data))

    @process(PAY)
    async def anything(self, job: Any) -> Any:  # noqa: ANN401 -- the case
        return job

    @process(REMIND)
    async def without_result(self, job: Job[Order, None]) -> None: ...

    @process(COUNT)
    async def without_data(self, job: Job[None, int]) -> int:
        return 1

    @process(LISTED)
    async def generics(self, data: list[Order]) -> dict[str, int]:
        return {"orders": len(data)}

    @process(ANY)
    async def definition_without_types(self, data: Order) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)
    @process("pay-later")
    async def two_names(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)
    @staticmethod
    async def static(job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)


@processor("orders")
class ByName:
    @process("pay")
    async def one(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @process("count")
    def two(self, number: int, *, ledger: Ledger) -> int:
        return number

    @process()
    async def rest(self, job: Job) -> None: ...


async def methods_keep_their_signature(one: ByDefinition, job: Job[Order, Receipt], ledger: Ledger, log: JobLogger) -> None:
    assert_type(await one.job_first(job), Receipt)
    assert_type(await one.job_first(job=job), Receipt)
    assert_type(one.in_a_thread(job), Receipt)
    assert_type(await one.data_first(data=Order(number=1)), Receipt)
    assert_type(await one.injected(job, ledger, log=log), Receipt)
    assert_type(await one.a_subclass_of_the_result(job), Invoice)
    assert_type(await ByDefinition.job_first(one, job), Receipt)
    assert_type(await ByDefinition.static(job), Receipt)


class Overridden(ByDefinition):
    @process(PAY)
    async def job_first(self, job: Job[Order, Receipt]) -> Receipt:
        return await super().job_first(job)

    async def data_first(self, data: Order) -> Receipt:
        return await super().data_first(data)


# ── queues ────────────────────────────────────────────────────────────────────────────────────────────────────


async def what_goes_in_comes_out(queue: Queue) -> None:
    job = await queue.add(PAY, Order(number=1), delay="5s")
    assert_type(job, Job[Order, Receipt])
    assert_type(job.data.number, int)
    assert_type(await job.result(timeout="5s"), Receipt)
    assert_type(job.return_value, Receipt | None)
    assert_type(await queue.add(PAY, {"number": 1}), Job[Order, Receipt])
    assert_type(await queue.add(COUNT), Job[None, int])
    assert_type(await queue.add_many([queue.job(PAY, Order(number=1)), queue.job(PAY, {"number": 2})]), list[Job[Order, Receipt]])
    assert_type(await queue.add("pay", {"number": 1}), Job[Any, Any])
    assert_type(await queue.add({"number": 1}), Job[Any, Any])


async def a_queue_of_one_kind(orders: Queue[Order, Receipt]) -> None:
    job = await orders.add("pay", Order(number=1))
    assert_type(job, Job[Order, Receipt])
    assert_type(await orders.add(Order(number=1)), Job[Order, Receipt])
    assert_type(await orders.add(COUNT, None), Job[None, int])
    await job.update_data(Order(number=2))


# ── functions ─────────────────────────────────────────────────────────────────────────────────────────────────


async def pay(job: Job[Order, Receipt]) -> Receipt:
    return Receipt(paid=True)


def pay_data(data: Order, limit: int = 3) -> Receipt:
    return Receipt(paid=data.number < limit)


async def count(job: Job[None, int]) -> int:
    return 1


def workers(queue: Queue, orders: Queue[Order, Receipt]) -> list[Worker]:
    handlers = [handler(pay, PAY), handler(pay_data, PAY, concurrency=2), handler(count, COUNT), handler(pay, "pay"), handler(pay_data)]
    return [
        Worker(queue, pay),
        Worker(queue, pay_data),
        Worker(queue, {"pay": pay, "pay-data": pay_data, "count": count}),
        Worker(queue, handlers),
        Worker(orders, pay),
        Worker(orders, {"pay": pay, "pay-data": pay_data}),
        Worker(orders, [handler(pay)]),
    ]


# ── the container ─────────────────────────────────────────────────────────────────────────────────────────────


class Check(Protocol):
    """A Protocol under which several things are provided."""

    def passes(self) -> bool: ...


class RedisCheck:
    def passes(self) -> bool:
        return True


class Timing:
    async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401 -- the handler's result
        assert_type(context.note(RedisCheck), RedisCheck | None)
        return await call_next()


@catch(ValueError)
class Forgive:
    def catch(self, error: ValueError, context: JobExecutionContext) -> Recovered:
        return Recovered(context.job.name)


CHECKS = ManyToken[Check]("CHECKS")
provide(CHECKS, use_class=RedisCheck)
provide(CHECKS, use_value=RedisCheck())
provide(APP_INTERCEPTOR, use_class=Timing)
provide(APP_FILTER, use_class=Forgive)


@use_interceptors(Timing, Timing())
@use_filters(Forgive)
@processor("orders")
class Surrounded:
    @process(PAY)
    @use_interceptors(Timing)
    async def pay(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)


async def container(ref: ModuleRef, discovery: DiscoveryService) -> None:
    assert_type(ref.get_all(CHECKS), list[Check])
    assert_type(await ref.create(RedisCheck), RedisCheck)
    assert_type(discovery.classes(RedisCheck)[0].metadata, RedisCheck)
    assert_type(discovery.methods(RedisCheck)[0].metadata, RedisCheck)
    ContainerModule.from_container(TheirContainer, bind={"currency": CURRENCY}, prefix="theirs.")


class TheirContainer(DeclarativeContainer):
    """Of a user."""


# ── applications and testing modules ──────────────────────────────────────────────────────────────────────────


@module()
class AppModule: ...


async def applications() -> None:
    async with WorkerFactory.create(AppModule, roles=["producer"]) as app:
        assert_type(app, Application)
    assert_type(await WorkerFactory.create(AppModule), Application)
    async with await WorkerFactory.create(AppModule) as app:
        assert_type(app, Application)


async def testing_modules() -> None:
    async with Test.create_testing_module(imports=[AppModule]).compile() as t:
        assert_type(t, TestingModule)
    assert_type(await Test.create_testing_module(imports=[AppModule]).compile(), TestingModule)


async def returns_in_a_block() -> int:
    async with WorkerFactory.create(AppModule):
        return 1
