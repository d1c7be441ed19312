"""huey as a benchmark program: threads, results in the same server, no periodic tasks."""

import asyncio

from huey import RedisHuey

from tests.benchmarks.programs.adapter import SETTINGS, THREAD_HANDLERS, Adapter, serve

HUEY = RedisHuey("bench", host=SETTINGS["host"], port=SETTINGS["port"])
TASKS = {name: HUEY.task(name=name)(THREAD_HANDLERS[name]) for name in THREAD_HANDLERS}


class Huey(Adapter):
    async def open(self):
        pass

    async def add(self, name, data):
        TASKS[name](**data)

    async def start(self, slots):
        self.consumer = HUEY.create_consumer(workers=slots, worker_type="thread", periodic=False, check_worker_health=False)
        self.consumer.start()

    async def stop(self):
        await asyncio.to_thread(self.consumer.stop, graceful=True)

    async def results(self):
        return HUEY.result_count()


serve(Huey())
