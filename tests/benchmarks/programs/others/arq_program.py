"""arq as a benchmark program. Its default poll of 0.5 s would make a bad figure: it polls every 10 ms."""

from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from tests.benchmarks.programs.adapter import HANDLERS, SETTINGS, Adapter, Background, count_keys, serve

SERVER = RedisSettings(SETTINGS["host"], SETTINGS["port"])


def task(name):
    handler = HANDLERS[name]

    async def run(_ctx, **data):
        return await handler(**data)

    return func(run, name=name)


class Arq(Adapter):
    async def open(self):
        self.pool = await create_pool(SERVER)

    async def add(self, name, data):
        await self.pool.enqueue_job(name, **data)

    async def start(self, slots):
        self.worker = Worker(
            [task(name) for name in HANDLERS],
            redis_settings=SERVER, max_jobs=slots, poll_delay=0.01, handle_signals=False, log_results=False,
        )  # fmt: skip
        self.running = Background(self.worker.async_run())

    async def stop(self):
        await self.running.cancel()
        await self.worker.close()

    async def results(self):
        return await count_keys(self.pool, "arq:result:*")


serve(Arq())
