"""The module that is imported keeps what is asked for to itself."""

from __future__ import annotations

from toril import module


class Mailer:
    async def send(self, to: str) -> None: ...


@module(providers=[Mailer])
class MailModule: ...


class SignUp:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer


@module(imports=[MailModule], providers=[SignUp])
class UserModule: ...


@module(imports=[UserModule])
class AppModule: ...
