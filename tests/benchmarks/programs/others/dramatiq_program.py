"""dramatiq as a benchmark program: threads, and results in the same server."""

import asyncio

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.benchmarks.programs.adapter import THREAD_HANDLERS, URL, Adapter, serve

BROKER = RedisBroker(url=URL)
BROKER.add_middleware(Results(backend=RedisBackend(url=URL, namespace="result", use_namespace_prefix_keys=True)))
dramatiq.set_broker(BROKER)
ACTORS = {name: dramatiq.actor(THREAD_HANDLERS[name], actor_name=name, store_results=True, broker=BROKER) for name in THREAD_HANDLERS}


class Dramatiq(Adapter):
    async def open(self):
        self.client = redis.Redis.from_url(URL)

    async def add(self, name, data):
        ACTORS[name].send(**data)

    async def start(self, slots):
        self.worker = dramatiq.Worker(BROKER, worker_threads=slots)
        self.worker.start()

    async def stop(self):
        await asyncio.to_thread(self.worker.stop)

    async def results(self):
        return sum(1 for _ in self.client.scan_iter("result:*", count=1_000))


serve(Dramatiq())
