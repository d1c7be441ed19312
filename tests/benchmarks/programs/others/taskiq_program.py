"""taskiq as a benchmark program: on its broker for streams, the one that acknowledges, reading ahead as many as there are slots."""

import asyncio

from redis.asyncio import Redis
from taskiq.receiver import Receiver
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from tests.benchmarks.programs.adapter import HANDLERS, URL, Adapter, Background, count_keys, serve

BROKER = RedisStreamBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, prefix_str="result"))
TASKS = {name: BROKER.task(task_name=name)(HANDLERS[name]) for name in HANDLERS}


class Taskiq(Adapter):
    async def open(self):
        self.client = Redis.from_url(URL)
        await BROKER.startup()

    async def add(self, name, data):
        await TASKS[name].kiq(**data)

    async def start(self, slots):
        BROKER.is_worker_process = True
        self.told = asyncio.Event()
        self.running = Background(Receiver(BROKER, max_async_tasks=slots, max_prefetch=slots).listen(self.told))

    async def stop(self):
        self.told.set()
        await self.running.cancel()

    async def results(self):
        return await count_keys(self.client, "result:*")


serve(Taskiq())
