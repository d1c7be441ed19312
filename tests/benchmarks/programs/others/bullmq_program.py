"""BullMQ for Python as a benchmark program."""

from bullmq import Queue, Worker

from tests.benchmarks.programs.adapter import HANDLERS, URL, Adapter, serve


async def handle(job, _token):
    return await HANDLERS[job.name](**job.data)


class BullMQ(Adapter):
    async def open(self):
        self.queue = Queue("bench", {"connection": URL})

    async def add(self, name, data):
        await self.queue.add(name, data)

    async def add_many(self, name, data):
        await self.queue.addBulk([{"name": name, "data": one} for one in data])

    async def start(self, slots):
        self.worker = Worker("bench", handle, {"connection": URL, "concurrency": slots})

    async def stop(self):
        await self.worker.close()

    async def results(self):
        return await self.queue.getCompletedCount()


serve(BullMQ())
