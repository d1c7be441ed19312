"""The names that `toril` offers: `from toril import …` finds them here."""

from __future__ import annotations

from toril.application import Application, WorkerFactory
from toril.clock import Clock, SystemClock
from toril.di import (
    INQUIRER,
    JOB_REF,
    ApplicationContext,
    ContainerModule,
    DiscoveryService,
    DynamicModule,
    Inject,
    JobRef,
    Lazy,
    ManyToken,
    ModuleRef,
    OptionsFactory,
    OptionWays,
    Scope,
    Token,
    current_job,
    forward_ref,
    global_module,
    injectable,
    mark,
    module,
    option_providers,
    provide,
)
from toril.durations import Duration
from toril.errors import DelayedError, RateLimitError, TorilError, UnrecoverableError, WaitingChildrenError, WaitingError
from toril.modules.config_module import ConfigModule
from toril.modules.decorators import (
    on_queue_active,
    on_queue_cleaned,
    on_queue_completed,
    on_queue_drained,
    on_queue_error,
    on_queue_failed,
    on_queue_paused,
    on_queue_progress,
    on_queue_removed,
    on_queue_resumed,
    on_queue_stalled,
    on_queue_waiting,
    process,
    processor,
)
from toril.modules.fleet_decorators import (
    on_global_queue_active,
    on_global_queue_added,
    on_global_queue_cleaned,
    on_global_queue_completed,
    on_global_queue_delayed,
    on_global_queue_drained,
    on_global_queue_failed,
    on_global_queue_paused,
    on_global_queue_progress,
    on_global_queue_removed,
    on_global_queue_resumed,
    on_global_queue_stalled,
    on_global_queue_waiting,
)
from toril.modules.interceptors import (
    APP_FILTER,
    APP_INTERCEPTOR,
    CallNext,
    ExceptionFilter,
    Interceptor,
    JobExecutionContext,
    Recovered,
    catch,
    use_filters,
    use_interceptors,
)
from toril.modules.queue_module import QueueModule, QueueModuleOptions
from toril.modules.roles import Role
from toril.modules.schedule_decorators import cron, interval, timeout
from toril.modules.schedule_module import ScheduleModule
from toril.modules.schedule_registry import SchedulerRegistry
from toril.modules.schedules import ScheduleInfo
from toril.modules.settings import SettingsSection, TorilSettings
from toril.modules.tokens import InjectFlowProducer, InjectQueue, QueueToken
from toril.queues.children import ChildrenCounts, ChildrenPage
from toril.queues.event_stream import QueueEvents
from toril.queues.flows import FlowJob, FlowProducer, JobNode, flow_job
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_parts import Backoff, Deduplication, KeepJobs, RateLimit, custom, exponential, fixed
from toril.queues.options import JobOptions, QueueOptions
from toril.queues.queue import Queue
from toril.queues.sync_job import SyncJob
from toril.telemetry.logs import JobLogger, configure_logging, get_logger
from toril.telemetry.metrics import measure_jobs
from toril.telemetry.tracing import trace_jobs
from toril.worker.options import WorkerOptions
from toril.worker.processor import Handler, handler
from toril.worker.worker import Worker

__all__ = [
    "APP_FILTER",
    "APP_INTERCEPTOR",
    "INQUIRER",
    "JOB_REF",
    "Application",
    "ApplicationContext",
    "Backoff",
    "CallNext",
    "ChildrenCounts",
    "ChildrenPage",
    "Clock",
    "ConfigModule",
    "ContainerModule",
    "Deduplication",
    "DelayedError",
    "DiscoveryService",
    "Duration",
    "DynamicModule",
    "ExceptionFilter",
    "FlowJob",
    "FlowProducer",
    "Handler",
    "Inject",
    "InjectFlowProducer",
    "InjectQueue",
    "Interceptor",
    "Job",
    "JobDef",
    "JobExecutionContext",
    "JobLogger",
    "JobNode",
    "JobOptions",
    "JobRef",
    "KeepJobs",
    "Lazy",
    "ManyToken",
    "ModuleRef",
    "OptionWays",
    "OptionsFactory",
    "Queue",
    "QueueEvents",
    "QueueModule",
    "QueueModuleOptions",
    "QueueOptions",
    "QueueToken",
    "RateLimit",
    "RateLimitError",
    "Recovered",
    "Role",
    "ScheduleInfo",
    "ScheduleModule",
    "ScheduleRule",
    "SchedulerRegistry",
    "Scope",
    "SettingsSection",
    "SyncJob",
    "SystemClock",
    "Token",
    "TorilError",
    "TorilSettings",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "Worker",
    "WorkerFactory",
    "WorkerOptions",
    "catch",
    "configure_logging",
    "cron",
    "current_job",
    "custom",
    "exponential",
    "fixed",
    "flow_job",
    "forward_ref",
    "get_logger",
    "global_module",
    "handler",
    "injectable",
    "interval",
    "mark",
    "measure_jobs",
    "module",
    "on_global_queue_active",
    "on_global_queue_added",
    "on_global_queue_cleaned",
    "on_global_queue_completed",
    "on_global_queue_delayed",
    "on_global_queue_drained",
    "on_global_queue_failed",
    "on_global_queue_paused",
    "on_global_queue_progress",
    "on_global_queue_removed",
    "on_global_queue_resumed",
    "on_global_queue_stalled",
    "on_global_queue_waiting",
    "on_queue_active",
    "on_queue_cleaned",
    "on_queue_completed",
    "on_queue_drained",
    "on_queue_error",
    "on_queue_failed",
    "on_queue_paused",
    "on_queue_progress",
    "on_queue_removed",
    "on_queue_resumed",
    "on_queue_stalled",
    "on_queue_waiting",
    "option_providers",
    "process",
    "processor",
    "provide",
    "timeout",
    "trace_jobs",
    "use_filters",
    "use_interceptors",
]
