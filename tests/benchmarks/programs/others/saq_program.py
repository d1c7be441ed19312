"""SAQ as a benchmark program. As many operations on the server at a time as there are slots, instead of its default of 20."""

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from tests.benchmarks.programs.adapter import HANDLERS, URL, Adapter, Background, count_keys, serve


def task(name):
    handler = HANDLERS[name]

    async def run(_ctx, **data):
        return await handler(**data)

    return name, run


class Saq(Adapter):
    def queue(self):
        return RedisQueue(Redis.from_url(URL), name="bench", max_concurrent_ops=100)

    async def open(self):
        self.adding = self.queue()
        await self.adding.connect()

    async def add(self, name, data):
        await self.adding.enqueue(name, **data)

    async def start(self, slots):
        tasks = [task(name) for name in HANDLERS]
        self.worker = Worker(self.queue(), tasks, concurrency=slots, shutdown_grace_period_s=1)
        self.running = Background(self.worker.start())

    async def stop(self):
        await self.worker.stop()
        await self.running.cancel()

    async def results(self):
        jobs = await count_keys(self.adding.redis, "saq:job:bench:*")
        return jobs - await self.adding.count("incomplete")


serve(Saq())
