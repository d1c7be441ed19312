"""How sending a mail fails.

MailError                          worth another try
├── MailDeferredError              the server says: not now (4xx)
└── MailServerUnavailableError     no way to the server, or no way in
toril.errors.UnrecoverableError    will never work
├── MailRefusedError               the server says: never (5xx)
└── UnusableMailError              the mail itself: its address, template or headers
toril.errors.ConfigurationError
├── InvalidSmtpUrlError            SMTP_URL can't be read
└── MailboxError                   the development mailbox can't start
"""

from __future__ import annotations

from toril.errors import ConfigurationError, UnrecoverableError


class MailError(Exception):
    """A mail wasn't sent, and another try may succeed."""


class MailDeferredError(MailError):
    """The server refuses the mail for now."""

    def __init__(self, to: str, code: int, reply: str) -> None:
        super().__init__(to, code, reply)
        self.to, self.code, self.reply = to, code, reply

    def __str__(self) -> str:
        return f"the mail to {self.to} was refused for now: {self.code} {self.reply}"


class MailServerUnavailableError(MailError):
    """The server can't be reached, breaks off, or doesn't let us in. `address` never holds a password."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return f"the mail server at {self.address} is not available: {self.reason}"


class MailRefusedError(UnrecoverableError):
    """The server refuses the mail for good."""

    def __init__(self, to: str, code: int, reply: str) -> None:
        super().__init__(to, code, reply)
        self.to, self.code, self.reply = to, code, reply

    def __str__(self) -> str:
        return f"the mail to {self.to} was refused for good: {self.code} {self.reply}"


class UnusableMailError(UnrecoverableError):
    """No mail can be made of this: `what` names the part, `reason` tells why."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


class InvalidSmtpUrlError(ConfigurationError, ValueError):
    """The address of the mail server can't be read. The text never holds the password."""

    def __init__(self, safe_url: str, reason: str) -> None:
        super().__init__(safe_url, reason)
        self.safe_url, self.reason = safe_url, reason

    def __str__(self) -> str:
        return (
            f"{self.safe_url!r}: {self.reason}. Write smtp://[user:password@]host[:port][?starttls=always|auto|never], "
            "or smtps://… for TLS from the first byte; in user and password write %40 for @ and %2F for /."
        )


class MailboxError(ConfigurationError):
    """The development mailbox can't start."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"the development mailbox can't listen at {self.address}: {self.reason}. "
            "Set mailbox.port to 0 (any free port) or to a free one in config/development.toml, or SMTP_URL to use another server."
        )
