"""A parameter whose type says nothing about what is wanted."""

from __future__ import annotations

from toril import Token, module, provide

SENDER = Token[str]("SENDER")


class Newsletter:
    def __init__(self, sender: str) -> None:
        self.sender = sender


@module(providers=[Newsletter, provide(SENDER, use_value="news@example.com")])
class AppModule: ...
