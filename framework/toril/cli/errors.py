"""What can be wrong with what somebody typed, beyond what typer finds itself."""

from __future__ import annotations

from toril.errors import ConfigurationError, TorilError


class UsageError(ConfigurationError):
    """Arguments that make no sense together, or a value that can't be read. Its text says what to write."""

    def __str__(self) -> str:
        return str(self.args[0])


class NothingFoundError(TorilError):
    """What was named doesn't exist."""

    def __str__(self) -> str:
        return str(self.args[0])
