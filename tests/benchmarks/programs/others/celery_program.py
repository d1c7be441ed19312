"""celery as a benchmark program: its pool of threads, and more prefetched tasks, as its guide advises for short ones.

The worker of its test package is used: it runs in this process, without gossip, mingling and heartbeat.
"""

import asyncio
from contextlib import ExitStack

import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from tests.benchmarks.programs.adapter import THREAD_HANDLERS, URL, Adapter, serve

APP = Celery("bench", broker=URL, backend=URL)
APP.conf.worker_prefetch_multiplier = 10
TASKS = {name: APP.task(THREAD_HANDLERS[name], name=name) for name in THREAD_HANDLERS}


class Celeries(Adapter):
    async def open(self):
        self.client = redis.Redis.from_url(URL)

    async def add(self, name, data):
        TASKS[name].apply_async(kwargs=data)

    async def start(self, slots):
        self.stack = ExitStack()
        worker = start_worker(APP, concurrency=slots, pool="threads", perform_ping_check=False)
        await asyncio.to_thread(self.stack.enter_context, worker)

    async def stop(self):
        await asyncio.to_thread(self.stack.close)

    async def results(self):
        return sum(1 for _ in self.client.scan_iter("celery-task-meta-*", count=1_000))


serve(Celeries())
