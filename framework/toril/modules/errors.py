"""What can be wrong with processors and schedules in a module graph; found with everything else that is, before anything is created.

DIError
├── UnregisteredQueueError    a processor's queue is registered nowhere
├── UnregisteredDeadLetterError    nor is the queue for another one's dead letters
├── HandlerConflictError      two handlers for one name of one queue
├── ProcessorOptionsError     two processors of one queue want different options
├── NoHandlerError            a processor without a handler, or a listener with nothing to hear
├── NoJobHereError            a listener or schedule without a job, in a class that asks for the current job
├── NotInChildError           a handler for child processes that these can't import
├── InvalidProcessorError     a method that can't be called, or whose types can't be read or used
├── NoScheduleModuleError     scheduled methods in an application without ScheduleModule
├── ScheduleConflictError     two schedules of one name
└── InvalidScheduleError      a scheduled method that can't be called
"""

from __future__ import annotations

from toril.di import DIError


class UnregisteredQueueError(DIError):
    """A processor serves a queue that no module registers, or a listener hears one; `verb` tells which."""

    def __init__(self, processor: str, queue: str, place: str, hint: str, verb: str = "processes") -> None:
        super().__init__(processor, queue, place, hint, verb)
        self.processor, self.queue, self.place, self.hint, self.verb = processor, queue, place, hint, verb

    def __str__(self) -> str:
        return f"{self.processor} ({self.place}) {self.verb} queue {self.queue!r}: {self.hint}"


class UnregisteredDeadLetterError(DIError):
    """A queue's dead letters should go to a queue that no module registers."""

    def __init__(self, queue: str, dead_letter: str, place: str, hint: str) -> None:
        super().__init__(queue, dead_letter, place, hint)
        self.queue, self.dead_letter, self.place, self.hint = queue, dead_letter, place, hint

    def __str__(self) -> str:
        return f"queue {self.queue!r} ({self.place}) sends its dead letters to {self.dead_letter!r}: {self.hint}"


class HandlerConflictError(DIError):
    """Two methods handle the same jobs."""

    def __init__(self, queue: str, name: str | None, first: str, second: str) -> None:
        super().__init__(queue, name, first, second)
        self.queue, self.name, self.first, self.second = queue, name, first, second

    def __str__(self) -> str:
        which = "jobs of every other name" if self.name is None else f"jobs named {self.name!r}"
        return f"queue {self.queue!r} has two handlers for {which}: keep one of them.\n  - {self.first}\n  - {self.second}"


class ProcessorOptionsError(DIError):
    """Two processors of one queue set one option of their common worker to different values."""

    def __init__(self, queue: str, option: str, first: str, second: str) -> None:
        super().__init__(queue, option, first, second)
        self.queue, self.option, self.first, self.second = queue, option, first, second

    def __str__(self) -> str:
        return (
            f"the processors of queue {self.queue!r} become one worker, and contradict each other in {self.option}: "
            f"set it in one of them.\n  - {self.first}\n  - {self.second}"
        )


class NoHandlerError(DIError):
    """A class says that it processes a queue, and has no method that does; or it only listens, and there is nothing to hear."""

    def __init__(self, processor: str, queue: str, place: str, only_listens: bool = False) -> None:
        super().__init__(processor, queue, place, only_listens)
        self.processor, self.queue, self.place, self.only_listens = processor, queue, place, only_listens

    def __str__(self) -> str:
        if self.only_listens:
            return (
                f"{self.processor} ({self.place}) listens to what the worker of queue {self.queue!r} does in this process, but no "
                "method here handles its jobs: add one with @process(...), or follow the whole fleet with QueueEvents."
            )
        return (
            f"{self.processor} ({self.place}) processes queue {self.queue!r}, but none of its methods does: "
            "decorate one with @process(...), or name it `process`."
        )


class NoJobHereError(DIError):
    """A listener hears of something that has no job, or a schedule runs without one, and its class can't be made without."""

    def __init__(self, processor: str, listener: str, chain: tuple[str, ...], place: str) -> None:
        super().__init__(processor, listener, chain, place)
        self.processor, self.listener, self.chain, self.place = processor, listener, chain, place

    def __str__(self) -> str:
        return (
            f"{self.processor}.{self.listener} ({self.place}) is called without a job, but its class asks for the current one "
            f"({' -> '.join(self.chain)}). Move it to a class of its own, or ask for JobLogger instead of the job."
        )


class NotInChildError(DIError):
    """A handler is to run in child processes, which can't import what provides it."""

    def __init__(self, processor: str, place: str, reason: str) -> None:
        super().__init__(processor, place, reason)
        self.processor, self.place, self.reason = processor, place, reason

    def __str__(self) -> str:
        return (
            f"{self.processor} ({self.place}) runs in child processes, which make the application anew from its root module, but "
            f"{self.reason}. Write the module that provides the processor as a class at the top level of a file that is imported "
            "(app/main.py, started as `toril worker app.main:AppModule`), and make it the root module, or import it from there."
        )


class InvalidProcessorError(DIError):
    """A method can't be called with what it will be given, or its types can't be read or used; `reason` tells."""

    def __init__(self, processor: str, place: str, reason: str) -> None:
        super().__init__(processor, place, reason)
        self.processor, self.place, self.reason = processor, place, reason

    def __str__(self) -> str:
        return f"{self.processor} ({self.place}): {self.reason}"


class NoScheduleModuleError(DIError):
    """Methods are scheduled, and nothing in the application would ever run them."""

    def __init__(self, methods: tuple[str, ...], root: str) -> None:
        super().__init__(methods, root)
        self.methods, self.root = methods, root

    def __str__(self) -> str:
        which = "".join(f"\n  - {method}" for method in self.methods)
        fix = f"add ScheduleModule.for_root() to the imports of {self.root}"
        return f"these methods are scheduled, but no module imports ScheduleModule: {fix}.{which}"


class ScheduleConflictError(DIError):
    """Two schedules have the same name, under which the server knows only one."""

    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(name, first, second)
        self.name, self.first, self.second = name, first, second

    def __str__(self) -> str:
        return f"two schedules are named {self.name!r}: give one of them another name (name=…).\n  - {self.first}\n  - {self.second}"


class InvalidScheduleError(DIError):
    """A scheduled method can't be called; `reason` tells."""

    def __init__(self, schedule: str, place: str, reason: str) -> None:
        super().__init__(schedule, place, reason)
        self.schedule, self.place, self.reason = schedule, place, reason

    def __str__(self) -> str:
        return f"schedule {self.schedule!r} ({self.place}): {self.reason}"
