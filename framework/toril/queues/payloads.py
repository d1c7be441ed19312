"""Models in, JSON text out, and back: what a job carries, checked against the type that its definition or handler names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeAlias, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import TypeVar

from toril.errors import InvalidPayloadError, NotJsonError, PayloadTooLargeError, UnusablePayloadTypeError
from toril.wire.codec import check_numbers, check_readable, check_secrets, from_json, to_json

T = TypeVar("T")

Part: TypeAlias = Literal["data", "result"]

DEFAULT_SIZE_LIMIT: Final = 10 * 1024 * 1024
"""How many bytes of JSON the data and the result of a job may have unless somebody says otherwise (`size_limit`, `result_size_limit`).

The server keeps each in its memory, writes it to its log and its replicas, and each claim carries it. Never written on the wire."""

_MOST_PROBLEMS: Final = 20
_NO_DATA: Final = b"{}"
"""What a job without data has on the wire."""


def check_size(text: bytes, limit: int | None, name: str, part: str = "data") -> None:
    """Refuse JSON that is too big for the job of this name. `limit`: in bytes; None: the default one.

    Raises:
        PayloadTooLargeError
    """
    limit = DEFAULT_SIZE_LIMIT if limit is None else limit
    if len(text) > limit:
        raise PayloadTooLargeError(name, len(text), limit, part)


DATA_DEPTH: Final = 198
"""How deep the data of a job may be nested: a dead letter about it, two levels deeper, must still be readable."""


class PayloadType(Generic[T]):
    """A type as pydantic sees it; `Any` takes whatever JSON can hold.

    Args:
        hint: a model, dataclass, TypedDict, plain type or any other annotation that pydantic understands.
        part: what is checked with it, for the texts of errors.

    Making one is cheap: the validator is built when it is first needed.
    """

    def __init__(self, hint: Any, part: Part = "data") -> None:  # noqa: ANN401 -- an annotation is no type of its own
        self.hint: Any = type(None) if hint is None else hint
        self.part: Part = part
        self._is_any = hint is Any or hint is object
        self._is_model = BaseModel in getattr(hint, "__mro__", ())

    @property
    def is_any(self) -> bool:
        """Whether every JSON value fits."""
        return self._is_any

    @property
    def model(self) -> str:
        """The type's name, as error texts show it."""
        return getattr(self.hint, "__name__", None) or str(self.hint)

    def check(self) -> None:
        """Build the validator now, to find out early that there can't be one.

        Raises:
            UnusablePayloadTypeError: pydantic can't check this type.
        """
        if not self._is_any:
            _ = self._adapter

    def decode(self, text: bytes, name: str, job_id: str | None) -> T:
        """Read JSON text as this type; `name` and `job_id` tell the error whose it is.

        Raises:
            InvalidPayloadError: it doesn't fit, or is no JSON. Its text never shows the value.
        """
        try:
            if self._is_any:
                return cast("T", from_json(text))
            if self.hint is type(None) and text == _NO_DATA:
                return cast("T", None)
            return cast("T", self._adapter.validator.validate_json(text))
        except ValidationError as error:
            raise self._misfit(error, name, job_id) from None
        except ValueError as error:
            raise InvalidPayloadError(name, "JSON", str(error), job_id, self.part) from None

    def encode(self, value: object, name: str) -> bytes:
        """Write a value of this type, or a mapping that fits it, as JSON text; `name` tells the error whose it is.

        Raises:
            InvalidPayloadError: it doesn't fit.
            NotJsonError: it holds something that JSON can't hold.
        """
        if self._is_any:
            return to_json(value, f"the {self.part} of job {name!r}")
        if self.hint is type(None) and (value is None or value == {}):
            return _NO_DATA if self.part == "data" else b"null"
        try:
            # Plain data is read as what it will be on the wire, so that it passes here if it passes there.
            if not (self._is_model and type(value) is self.hint) and isinstance(value, (Mapping, list)):
                valid = self._adapter.validate_json(to_json(cast("object", value), f"the {self.part} of job {name!r}"))
            else:
                valid = self._adapter.validate_python(value)
        except ValidationError as error:
            raise self._misfit(error, name, None) from None
        return self._write(valid, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PayloadType):
            return NotImplemented
        theirs: PayloadType[Any] = other  # pyright: ignore[reportUnknownVariableType]  # isinstance leaves the argument open
        return bool(self.hint == theirs.hint) and self.part == theirs.part

    def __hash__(self) -> int:
        return hash((str(self.hint), self.part))

    def __repr__(self) -> str:
        return f"PayloadType({self.model})"

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        try:
            return TypeAdapter(cast("type[T]", self.hint))
        except Exception as error:  # pydantic raises errors of many kinds here, and all mean the same
            raise UnusablePayloadTypeError(self.model, getattr(error, "message", str(error))) from error

    def _write(self, valid: T, name: str) -> bytes:
        what = f"the {self.part} of job {name!r}"
        try:
            text = self._adapter.serializer.to_json(valid, by_alias=True)
        except (ValueError, TypeError, RecursionError) as error:
            raise NotJsonError(what, "$", f"can't be written: {error}") from error
        # pydantic writes NaN and Infinity in a model as null, without a word. Where a null came out, look again.
        if b"null" in text or b"NaN" in text or b"Infinity" in text:
            check_numbers(self._adapter.dump_python(valid, by_alias=True), what)
        check_readable(text, what)
        check_secrets(valid, text, what)
        return text

    def _misfit(self, error: ValidationError, name: str, job_id: str | None) -> InvalidPayloadError:
        """pydantic's own words, without the input (it may hold secrets) and without links."""
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{'.'.join(str(step) for step in problem['loc']) or '(the whole)'}: {problem['msg']}" for problem in problems]
        if len(lines) > _MOST_PROBLEMS:
            lines[_MOST_PROBLEMS:] = [f"and {len(lines) - _MOST_PROBLEMS} more"]
        return InvalidPayloadError(name, self.model, "; ".join(lines), job_id, self.part)


ANY_DATA: Final[PayloadType[Any]] = PayloadType(Any)
ANY_RESULT: Final[PayloadType[Any]] = PayloadType(Any, "result")
