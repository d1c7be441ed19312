"""A second name for something that has no first one."""

from __future__ import annotations

from typing import Protocol

from toril import module, provide


class Notifier(Protocol):
    def notify(self, text: str) -> None: ...


class SmsNotifier:
    def notify(self, text: str) -> None: ...


class Alarm:
    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier


@module(providers=[Alarm, provide(Notifier, use_existing=SmsNotifier)])
class AppModule: ...
