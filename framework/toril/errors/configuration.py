"""What is found before anything runs: the program, its options or its settings must change."""

from __future__ import annotations

from collections.abc import Sequence

from toril.errors.base import TorilError


class ConfigurationError(TorilError):
    """The program, its options or its settings must change before it can run."""


class InvalidOptionError(ConfigurationError, ValueError):
    """An option has a value that makes no sense."""

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(option, value, reason)
        self.option, self.value, self.reason = option, value, reason

    def __str__(self) -> str:
        return f"{self.option}={self.value!r}: {self.reason}"


class InvalidCallError(InvalidOptionError, TypeError):
    """A function, class or decorator was given an option or argument that it doesn't take.

    `value` is never kept: under a name that nobody knows it may be a secret.
    """

    def __init__(self, called: str, problem: str, option: str) -> None:
        super().__init__(option, None, problem)
        self.args = (called, problem, option)
        self.called = called

    def __str__(self) -> str:
        return f"{self.called} {self.reason}"


class MissingExtraError(ConfigurationError):
    """What is asked for needs a package that isn't installed."""

    def __init__(self, what: str, extra: str, package: str) -> None:
        super().__init__(what, extra, package)
        self.what, self.extra, self.package = what, extra, package

    def __str__(self) -> str:
        return f"{self.what} needs {self.package}, which isn't installed: pip install 'toril[{self.extra}]'"


class InvalidDurationError(InvalidOptionError):
    """A duration is a bare number, negative, or text that can't be read."""


class UnknownBackoffError(ConfigurationError):
    """A job asks for a backoff strategy that is neither built in nor known to the worker."""

    def __init__(self, strategy: str, known: Sequence[str]) -> None:
        super().__init__(strategy, known)
        self.strategy, self.known = strategy, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(repr(name) for name in ("fixed", "exponential", *self.known))
        return (
            f"backoff strategy {self.strategy!r} is not known to the worker (known: {known}). "
            "Give it to the worker, as in @processor(…, backoff_strategies={…}) or WorkerOptions(backoff_strategies={…}), "
            "or use another one for the job."
        )


class UnusablePayloadTypeError(ConfigurationError):
    """A type that pydantic can't check, so no job can carry it."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason.rstrip(".")

    def __str__(self) -> str:
        return (
            f"{self.model} can't be the data or result of a job: {self.reason}. Use a pydantic model, dataclass, TypedDict or plain type."
        )


class InvalidCronError(InvalidOptionError):
    """A cron expression that can't be read; `field` names the part that is wrong."""

    def __init__(self, expression: str, field: str, reason: str) -> None:
        super().__init__("cron", expression, f"{field}: {reason}")
        self.args = (expression, field, reason)
        self.expression, self.field = expression, field


class SettingsError(ConfigurationError):
    """A settings file or an environment variable holds something that the settings don't allow."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        head = "the settings are not usable" if len(self.problems) == 1 else f"{len(self.problems)} problems in the settings"
        return head + ":\n" + "\n".join(f"  - {problem}" for problem in self.problems)


class InvalidRedisUrlError(ConfigurationError):
    """The address of the server can't be read. The text never holds the password."""

    def __init__(self, safe_url: str, reason: str) -> None:
        super().__init__(safe_url, reason)
        self.safe_url, self.reason = safe_url, reason.rstrip(".")

    def __str__(self) -> str:
        return (
            f"REDIS_URL {self.safe_url!r}: {self.reason}. "
            # No address with a login stands here: whatever redacts the text would hide a part of it.
            "Write redis://host:6379/0, rediss://… for TLS, unix:///path/to/socket, redis+sentinel://host:26379,…/name "
            "or redis+cluster://host:6379,…; user:password@ stands before the host"
        )


class ProcessorError(ConfigurationError):
    """Processors or handlers of one queue contradict each other."""

    def __init__(self, queue: str, reason: str, places: Sequence[str] = ()) -> None:
        super().__init__(queue, reason, places)
        self.queue, self.reason, self.places = queue, reason, tuple(places)

    def __str__(self) -> str:
        where = "".join(f"\n  - {place}" for place in self.places)
        return f"queue {self.queue!r}: {self.reason}{where}"
