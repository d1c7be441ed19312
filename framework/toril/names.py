"""The names that `toril` offers: `from toril import …` finds them here."""

from __future__ import annotations

from toril.application import Application, WorkerFactory
from toril.clock import Clock, SystemClock
from toril.di import (
    INQUIRER,
    JOB_REF,
    DynamicModule,
    Inject,
    JobRef,
    Lazy,
    ModuleRef,
    Scope,
    Token,
    current_job,
    forward_ref,
    global_module,
    injectable,
    module,
    provide,
)
from toril.durations import Duration
from toril.errors import DelayedError, TorilError, UnrecoverableError, WaitingError
from toril.modules.config_module import ConfigModule
from toril.modules.decorators import (
    on_queue_active,
    on_queue_completed,
    on_queue_error,
    on_queue_failed,
    on_queue_progress,
    process,
    processor,
)
from toril.modules.queue_module import QueueModule, QueueModuleOptions
from toril.modules.settings import SettingsSection, TorilSettings
from toril.modules.tokens import InjectQueue, QueueToken
from toril.queues.event_stream import QueueEvents
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.options import Backoff, JobOptions, KeepJobs, QueueOptions, custom, exponential, fixed
from toril.queues.queue import Queue
from toril.telemetry.logs import JobLogger, configure_logging, get_logger
from toril.worker.options import WorkerOptions
from toril.worker.processor import Handler, handler
from toril.worker.worker import Worker

__all__ = [
    "INQUIRER",
    "JOB_REF",
    "Application",
    "Backoff",
    "Clock",
    "ConfigModule",
    "DelayedError",
    "Duration",
    "DynamicModule",
    "Handler",
    "Inject",
    "InjectQueue",
    "Job",
    "JobDef",
    "JobLogger",
    "JobOptions",
    "JobRef",
    "KeepJobs",
    "Lazy",
    "ModuleRef",
    "Queue",
    "QueueEvents",
    "QueueModule",
    "QueueModuleOptions",
    "QueueOptions",
    "QueueToken",
    "ScheduleRule",
    "Scope",
    "SettingsSection",
    "SystemClock",
    "Token",
    "TorilError",
    "TorilSettings",
    "UnrecoverableError",
    "WaitingError",
    "Worker",
    "WorkerFactory",
    "WorkerOptions",
    "configure_logging",
    "current_job",
    "custom",
    "exponential",
    "fixed",
    "forward_ref",
    "get_logger",
    "global_module",
    "handler",
    "injectable",
    "module",
    "on_queue_active",
    "on_queue_completed",
    "on_queue_error",
    "on_queue_failed",
    "on_queue_progress",
    "process",
    "processor",
    "provide",
]
