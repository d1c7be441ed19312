"""`ScheduleModule`: runs the methods that are decorated with `@cron`, `@interval` and `@timeout`.

ScheduleModule.for_root()    once, in the root module     global     exports SchedulerRegistry
     └── imports QueueModule.register_queue("schedules")  whose job schedulers are the schedules, for Node's tools too
"""

from __future__ import annotations

from toril.calls import explained
from toril.di import DynamicModule, caller_place, module, provide
from toril.modules.queue_module import QueueModule
from toril.modules.schedule_explorer import DEFAULT_QUEUE, SCHEDULE_OPTIONS, ScheduleOptions
from toril.modules.schedule_registry import SchedulerRegistry
from toril.modules.tokens import CLOCK, QueueToken
from toril.queues.options import QueueOptions


@module()
class ScheduleModule:
    """Runs schedules: `imports=[ScheduleModule.for_root(), …]` in the root module."""

    @staticmethod
    @explained()
    def for_root(queue: str | QueueOptions = DEFAULT_QUEUE, *, owner: str | None = None, version: str | None = None) -> DynamicModule:
        """Let this application have schedules.

        At start, a process with the role `scheduler` makes the job schedulers of the queue what the code declares: changed ones get
        their new rule, those that are no longer declared are removed, the others don't move.

        Args:
            queue: where the fleet's schedules live; give each application that shares a server and prefix one of its own, since any
                worker of the queue may get any of its jobs.
            owner: in whose name they are declared; by default the import path of the root module, `app.main:AppModule`. Two
                applications must not have the same; one application must keep it, or its old schedules stay.
            version: of the application. With it a lower version that starts during a deploy doesn't put old schedules back. Numbers
                (`1.10`, `v2`) are compared as numbers, everything else as text, which is below any number; no version is lowest.

        Raises:
            InvalidOptionError: a queue, owner or version that can't be one.
        """
        options = ScheduleOptions(queue if isinstance(queue, QueueOptions) else QueueOptions(queue), owner, version)
        name = options.queue.name
        registry = provide(SchedulerRegistry, use_factory=SchedulerRegistry, inject=[SCHEDULE_OPTIONS, QueueToken(name), CLOCK])
        return DynamicModule(
            ScheduleModule,
            key="for_root",
            name="ScheduleModule.for_root",
            imports=[QueueModule.register_queue(options.queue)],
            providers=[provide(SCHEDULE_OPTIONS, use_value=options), registry],
            exports=[SchedulerRegistry],
            is_global=True,
            options=options,
            place=caller_place(1),
        )
