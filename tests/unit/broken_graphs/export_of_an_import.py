"""A module exports what a module that it imports provides."""

from __future__ import annotations

from toril import module


class Clock: ...


@module(providers=[Clock], exports=[Clock])
class ClockModule: ...


@module(imports=[ClockModule], exports=[Clock])
class CoreModule: ...


class Reminders:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


@module(imports=[CoreModule], providers=[Reminders])
class AppModule: ...
