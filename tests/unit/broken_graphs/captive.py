"""Something that lives as long as the application holds something that lives as long as a job."""

from __future__ import annotations

from toril import JobLogger, QueueModule, module


class Audit:
    def __init__(self, log: JobLogger) -> None:
        self.log = log


class Importer:
    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    async def on_module_init(self) -> None: ...

    def imported(self, row: str) -> None:
        self.audit.log.info("imported", row=row)


@module(imports=[QueueModule.register_queue("imports")], providers=[Audit, Importer])
class AppModule: ...
