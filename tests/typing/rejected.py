"""What both type checkers must refuse. A comment at each such line names the codes: no more errors, no fewer, and none elsewhere.

Checked by `tests/packaging/test_typing.py`, and left out of `make check`. What must pass stands in `accepted.py`.
"""

from __future__ import annotations

from pydantic import BaseModel

from toril import (
    APP_INTERCEPTOR,
    Application,
    Job,
    JobDef,
    JobLogger,
    JobOptions,
    Lazy,
    ManyToken,
    Queue,
    QueueModule,
    QueueOptions,
    Token,
    Worker,
    WorkerFactory,
    catch,
    flow_job,
    handler,
    module,
    option_providers,
    process,
    processor,
    provide,
    use_filters,
    use_interceptors,
)
from toril.queues.drafts import JobDraft
from toril.testing import Test


class Order(BaseModel):
    number: int


class Other(BaseModel):
    text: str


class Receipt(BaseModel):
    paid: bool


def use(*values: object) -> None:
    """Do something with values."""


PAY = JobDef[Order, Receipt]("pay")
REMIND = JobDef[Order, None]("remind")


@processor("orders")
class Orders:
    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def another_payload(self, job: Job[Other, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def another_result_of_the_job(self, job: Job[Order, Other]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def another_result(self, job: Job[Order, Receipt]) -> Other:
        return Other(text="")

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def no_result(self, job: Job[Order, Receipt]) -> None: ...

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def perhaps_no_result(self, job: Job[Order, Receipt]) -> Receipt | None: ...

    @process(REMIND)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def a_result_too_many(self, job: Job[Order, None]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def other_data(self, data: Other) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def other_result_of_data(self, data: Order) -> Other:
        return Other(text="")

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    def another_result_in_a_thread(self, job: Job[Order, Receipt]) -> Other:
        return Other(text="")

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def neither_job_nor_data_first(self, log: JobLogger, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)  # rejected: mypy[call-overload] pyright[reportArgumentType]
    async def without_parameters(self) -> Receipt:
        return Receipt(paid=True)

    @process(PAY, concurency=2)  # rejected: mypy[call-overload] pyright[reportCallIssue]
    async def an_option_misspelt(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @process(PAY)
    async def body(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=job.data.nubmer > 0)  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]

    @process(PAY)
    async def data_body(self, data: Order) -> Receipt:
        return Receipt(paid=data.nubmer > 0)  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]


async def callers(orders: Orders, job: Job[Order, Receipt], other: Job[Other, Receipt]) -> None:
    await orders.body(other)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    await orders.body(job=job, more=1)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    await orders.data_body(Other(text=""))  # rejected: mypy[arg-type] pyright[reportArgumentType]
    use((await orders.body(job)).text)  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]


async def queues(queue: Queue, orders: Queue[Order, Receipt]) -> None:
    await queue.add(PAY, Other(text=""))  # rejected: mypy[misc] pyright[reportArgumentType]
    await queue.add(PAY, Order(number=1), atempts=3)  # rejected: mypy[call-overload] pyright[reportCallIssue]
    await queue.add(PAY, Order(number=1), {"attempts": 3})  # rejected: mypy[call-overload] pyright[reportCallIssue]
    await queue.add_many([queue.job("a")], attempts=3)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    queue.job(PAY, Order(number=1), atempts=3)  # rejected: mypy[call-overload] pyright[reportCallIssue]
    queue.job(PAY, Other(text=""))  # rejected: mypy[misc] pyright[reportArgumentType]
    drafts: list[JobDraft[Other, Receipt]] = [queue.job(PAY, Order(number=1))]  # rejected: mypy[arg-type] pyright[reportAssignmentType]
    await queue.add_many(drafts)
    added = await queue.add(PAY, Order(number=1))
    use(added.data.nubmer)  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    use((await added.result(timeout="5s")).text)  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    number: int = await added.result(timeout="5s")  # rejected: mypy[assignment] pyright[reportAssignmentType]
    use(number, added.return_value.paid)  # rejected: mypy[union-attr] pyright[reportOptionalMemberAccess]
    await added.update_data(Other(text=""))  # rejected: mypy[arg-type] pyright[reportArgumentType]
    await orders.add("pay", Other(text=""))  # rejected: mypy[call-overload] pyright[reportArgumentType]
    await orders.add(Other(text=""))  # rejected: mypy[call-overload] pyright[reportArgumentType]


def options() -> None:
    JobDef[Order, Receipt]("pay", atempts=3)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    JobOptions(atempts=3)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    JobOptions(attempts="3")  # rejected: mypy[arg-type] pyright[reportArgumentType]
    QueueOptions("orders", atempts=3)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    flow_job("pay", queue="orders", atempts=3)  # rejected: mypy[call-arg] pyright[reportCallIssue]
    QueueModule.for_root(redis="redis://localhost")  # rejected: mypy[call-arg] pyright[reportCallIssue]
    QueueModule.register_queue(name="orders")  # rejected: mypy[call-arg] pyright[reportCallIssue]


async def pay(job: Job[Order, Receipt]) -> Receipt:
    return Receipt(paid=True)


async def other_job(job: Job[Other, Receipt]) -> Receipt:
    return Receipt(paid=True)


def other_result(data: Order) -> Other:
    return Other(text="")


def workers(orders: Queue[Order, Receipt]) -> None:
    handler(other_job, PAY)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    handler(other_result, PAY)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    handler(pay, REMIND)  # rejected: mypy[misc] pyright[reportArgumentType]
    Worker(orders, other_job)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    Worker(orders, other_result)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    Worker(orders, {"pay": pay, "other": other_job})  # rejected: mypy[dict-item] pyright[reportArgumentType]


@module()
class AppModule: ...


async def not_awaited() -> None:
    WorkerFactory.create(AppModule).queue("orders")  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    WorkerFactory.create(AppModule, role=["producer"])  # rejected: mypy[call-arg] pyright[reportCallIssue]
    Test.create_testing_module().compile().queue("orders")  # rejected: mypy[attr-defined] pyright[reportAttributeAccessIssue]


class NoInterceptor: ...


class Numbers:
    """Something else than what the token says."""


NUMBERS = ManyToken[int]("NUMBERS")
RETRIES = Token[int]("RETRIES")


async def as_text() -> str:
    return "three"


def takes_text(text: str) -> None: ...


async def asked(app: Application, later: Lazy[Numbers]) -> None:
    takes_text(app.get(RETRIES))  # rejected: mypy[arg-type] pyright[reportArgumentType]
    takes_text(later.get())  # rejected: mypy[arg-type] pyright[reportArgumentType]
    takes_text(app.ctx.get_all(NUMBERS)[0])  # rejected: mypy[arg-type] pyright[reportArgumentType]
    await WorkerFactory.create_application_context(AppModule, roles=["worker"])  # rejected: mypy[call-arg] pyright[reportCallIssue]


def container() -> None:
    provide(NUMBERS, use_class=Numbers)  # rejected: mypy[arg-type] pyright[reportCallIssue]
    provide(NUMBERS, use_value="one")  # rejected: mypy[misc] pyright[reportCallIssue]
    provide(APP_INTERCEPTOR, use_class=NoInterceptor)  # rejected: mypy[arg-type] pyright[reportCallIssue]
    use_interceptors(NoInterceptor)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    use_filters(NoInterceptor())  # rejected: mypy[arg-type] pyright[reportArgumentType]
    provide(RETRIES, use_value="three")  # rejected: mypy[misc] pyright[reportCallIssue]
    provide(RETRIES, use_class=Numbers)  # rejected: mypy[arg-type] pyright[reportCallIssue]
    provide(RETRIES, use_factory=as_text)  # rejected: mypy[arg-type] pyright[reportCallIssue]
    provide(RETRIES)  # rejected: mypy[call-overload] pyright[reportCallIssue]
    provide(RETRIES, use_value=1, inject=[])  # rejected: mypy[call-overload] pyright[reportCallIssue]
    option_providers(RETRIES, use_factory=as_text)  # rejected: mypy[arg-type] pyright[reportArgumentType]
    catch(BaseException)  # rejected: mypy[arg-type] pyright[reportArgumentType]
