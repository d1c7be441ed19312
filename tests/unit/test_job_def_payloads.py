"""What a job carries: models to JSON and back, and what is said when it doesn't fit."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from typing_extensions import TypedDict

from toril.errors import InvalidPayloadError, NotJsonError, UnusablePayloadTypeError
from toril.queues.payloads import ANY_DATA, ANY_RESULT, PayloadType


class Person(BaseModel):
    name: str
    email: str = Field(alias="eMail")


class Mail(BaseModel):
    to: list[Person]
    at: datetime | None = None
    weight: float | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    count: int


@dataclasses.dataclass
class Point:
    x: float


class Movie(TypedDict):
    title: str


ANN = Person(name="Ann", eMail="a@b.c")
TEXT = b'{"to":[{"name":"Ann","eMail":"a@b.c"}],"at":null,"weight":null}'


def test_a_model_goes_out_by_alias_and_comes_back() -> None:
    mails = PayloadType[Mail](Mail)
    assert mails.encode(Mail(to=[ANN]), "m") == TEXT
    assert mails.decode(TEXT, "m", "1") == Mail(to=[ANN])


@pytest.mark.parametrize("value", [{"to": [{"name": "Ann", "eMail": "a@b.c"}]}, {"to": [ANN]}])
def test_a_mapping_is_taken_for_a_model(value: object) -> None:
    assert PayloadType[Mail](Mail).encode(value, "m") == TEXT


def test_a_mapping_is_read_as_what_it_will_be_on_the_wire() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for at in (moment, "2026-01-01T00:00:00Z"):
        assert PayloadType[Strict](Strict).encode({"at": at, "count": 1}, "s") == b'{"at":"2026-01-01T00:00:00Z","count":1}'


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Point, Point(1.5), b'{"x":1.5}'),
        (Movie, {"title": "Up"}, b'{"title":"Up"}'),
        (list[Person], [ANN], b'[{"name":"Ann","eMail":"a@b.c"}]'),
        (int, 7, b"7"),
        (str | None, None, b"null"),
        (dict[int, str], {1: "a"}, b'{"1":"a"}'),
        (Literal["a", "b"], "a", b'"a"'),
        (Annotated[int, PlainSerializer(lambda number: f"#{number}")], 3, b'"#3"'),
        (Any, {"free": [1, None, "ü"]}, '{"free":[1,null,"ü"]}'.encode()),
        (None, None, b"{}"),
        (None, {}, b"{}"),
    ],
)
def test_every_annotation_that_pydantic_knows_will_do(hint: Any, value: object, text: bytes) -> None:  # noqa: ANN401 -- an annotation
    assert PayloadType[Any](hint).encode(value, "n") == text


def test_no_data_is_an_empty_object_on_the_wire_and_no_result_is_null() -> None:
    assert PayloadType[None](None).decode(b"{}", "n", "1") is None
    assert PayloadType[None](None).decode(b"null", "n", "1") is None
    assert PayloadType[None](None, "result").encode(None, "n") == b"null"


def test_data_that_does_not_fit_is_told_in_pydantics_words_without_the_data() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        PayloadType[Mail](Mail).decode(b'{"to":[{"name":"Ann","eMail":["s3cret"]}],"weight":"s3cret"}', "welcome", "42")
    error = caught.value
    assert (error.name, error.model, error.job_id, error.part) == ("welcome", "Mail", "42", "data")
    assert error.detail == (
        "to.0.eMail: Input should be a valid string; weight: Input should be a valid number, unable to parse string as a number"
    )
    assert str(error) == f"the data of job 42 ('welcome') doesn't fit Mail: {error.detail}"
    assert "s3cret" not in repr(error.__cause__)
    assert error.__suppress_context__


def test_data_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidPayloadError, match="the data of job 'welcome' doesn't fit Mail: to: Field required"):
        PayloadType[Mail](Mail).encode({}, "welcome")
    with pytest.raises(InvalidPayloadError, match="fit Mail"):
        PayloadType[Mail](Mail).encode(ANN, "welcome")
    with pytest.raises(InvalidPayloadError, match="the result of job 'welcome'"):
        PayloadType[int](int, "result").encode("x", "welcome")


def test_a_long_list_of_misfits_is_cut() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        PayloadType[Any](list[int]).encode(["x"] * 100, "n")
    assert caught.value.detail.endswith("; and 80 more")


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":NaN}', b"\xff"])
def test_what_is_no_json_is_no_payload(text: bytes) -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        ANY_DATA.decode(text, "n", "7")
    assert caught.value.job_id == "7"
    with pytest.raises(InvalidPayloadError):
        PayloadType[Mail](Mail).decode(text, "n", "7")


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Any, {"a": [1, object()]}, "$.a[1]"),
        (Any, {"a": float("nan")}, "$.a"),
        (Mail, {"to": [], "weight": float("inf")}, "$.weight"),
        (Mail, {"to": [{1, 2}, {"x": object()}]}, "$.to[1].x"),
        (Mail, Mail(to=[], weight=float("nan")), "$.weight"),
        (Point, Point(float("inf")), "$.x"),
        (list[float], [1.0, float("nan")], "$[1]"),
    ],
)
def test_what_json_can_not_hold_is_named_with_its_path(hint: Any, value: object, path: str) -> None:  # noqa: ANN401 -- an annotation
    with pytest.raises(NotJsonError) as caught:
        PayloadType[Any](hint).encode(value, "welcome")
    assert caught.value.path == path
    assert caught.value.what == "the data of job 'welcome'"


def test_a_type_that_pydantic_does_not_know_is_told_when_it_is_first_used() -> None:
    class Opaque:
        pass

    opaque = PayloadType[Any](Opaque)
    with pytest.raises(UnusablePayloadTypeError, match="Opaque can't be the data or result of a job"):
        opaque.decode(b"{}", "n", "1")


def test_types_are_equal_by_what_they_check() -> None:
    assert PayloadType[Any](list[int]) == PayloadType[Any](list[int])
    assert PayloadType[Any](int) != PayloadType[Any](int, "result")
    assert ANY_DATA != ANY_RESULT
    assert len({PayloadType[Any](int), PayloadType[Any](int), PayloadType[Any](str)}) == 2
    assert PayloadType[Any](int) != object()
    assert repr(PayloadType[Any](int | None)) == "PayloadType(int | None)"
