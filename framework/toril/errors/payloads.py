"""Data and results that can't travel."""

from __future__ import annotations

from toril.errors.base import TorilError


class PayloadError(TorilError):
    """A payload, result, progress value or option that can't travel."""


class NotJsonError(PayloadError):
    """A value that JSON can't hold. `path` leads to it from the root, as in `$.user.tags[2]`."""

    def __init__(self, what: str, path: str, reason: str) -> None:
        super().__init__(what, path, reason)
        self.what, self.path, self.reason = what, path, reason

    def __str__(self) -> str:
        return f"{self.what} is not JSON: {self.path} {self.reason}"


class InvalidPayloadError(PayloadError):
    """Data that doesn't fit the model that the job's definition or handler asks for. `detail` is pydantic's text.

    `part` is `data`, or `result` where the value that a handler returned is meant.
    """

    def __init__(self, name: str, model: str, detail: str, job_id: str | None = None, part: str = "data") -> None:
        super().__init__(name, model, detail, job_id, part)
        self.name, self.model, self.detail, self.job_id, self.part = name, model, detail, job_id, part

    def __str__(self) -> str:
        which = f"job {self.job_id} ({self.name!r})" if self.job_id else f"job {self.name!r}"
        return f"the {self.part} of {which} doesn't fit {self.model}: {self.detail}"


class PayloadTooLargeError(PayloadError):
    """What a job carries has more bytes of JSON than it may have; `part` tells what: `data`, `result` or `progress`."""

    def __init__(self, name: str, size: int, limit: int, part: str = "data") -> None:
        super().__init__(name, size, limit, part)
        self.name, self.size, self.limit, self.part = name, size, limit, part

    def __str__(self) -> str:
        bound, fix = {
            "data": ("its size_limit", "store the bulk of it elsewhere and pass a reference, or raise the limit with size_limit="),
            "result": (
                "the worker's result_size_limit",
                "store the bulk of it elsewhere and return a reference, or raise WorkerOptions.result_size_limit",
            ),
        }.get(self.part, ("the limit", "events carry it to all who listen, so report a summary, and store the bulk of it elsewhere"))
        return f"the {self.part} of job {self.name!r} has {self.size:,} bytes, and {bound} is {self.limit:,}: {fix}"
