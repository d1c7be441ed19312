"""A processor of a queue that no module registers."""

from __future__ import annotations

from toril import Job, QueueModule, module, process, processor


@processor("e-mails")
class EmailProcessor:
    @process("welcome")
    async def welcome(self, job: Job) -> None: ...


@module(imports=[QueueModule.register_queue("emails")], providers=[EmailProcessor])
class AppModule: ...
