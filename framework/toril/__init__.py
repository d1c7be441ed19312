"""Toril: asyncio workers with modules and dependency injection, on BullMQ's Redis protocol."""

from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.options import Backoff, JobOptions, KeepJobs, QueueOptions, custom, exponential, fixed
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

__all__ = ["Backoff", "Job", "JobDef", "JobOptions", "KeepJobs", "Queue", "QueueOptions", "Worker", "WorkerOptions", "custom", "exponential", "fixed"]
