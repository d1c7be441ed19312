"""A queue is asked for by its class, of which there are many."""

from __future__ import annotations

from toril import Queue, QueueModule, module


class EmailService:
    def __init__(self, emails: Queue) -> None:
        self.emails = emails


@module(imports=[QueueModule.register_queue("emails")], providers=[EmailService])
class AppModule: ...
