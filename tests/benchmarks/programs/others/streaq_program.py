"""streaq as a benchmark program; it adds in bulk by one pipeline."""

from contextlib import AsyncExitStack

from streaq import Worker

from tests.benchmarks.programs.adapter import HANDLERS, URL, Adapter, Background, count_keys, serve


def worker_of(slots):
    worker = Worker(URL, concurrency=slots, handle_signals=False)
    return worker, {name: worker.task(handler, name=name, silent=True) for name, handler in HANDLERS.items()}


class Streaq(Adapter):
    async def open(self):
        self.adding, self.tasks = worker_of(1)
        self.stack = AsyncExitStack()  # held, and never left: the process just ends
        await self.stack.enter_async_context(self.adding)

    async def add(self, name, data):
        await self.tasks[name].enqueue(**data)

    async def add_many(self, name, data):
        await self.adding.enqueue_many([self.tasks[name].enqueue(**one) for one in data])

    async def start(self, slots):
        worker, _ = worker_of(slots)
        self.running = Background(worker.run_async())

    async def stop(self):
        await self.running.cancel()

    async def results(self):
        return await count_keys(self.adding.redis, "streaq:default:task:results:*")


serve(Streaq())
