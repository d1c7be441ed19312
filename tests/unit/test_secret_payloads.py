"""Secrets in payloads: never lost without a word, and never shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, field_serializer

from toril.errors import InvalidPayloadError, NotJsonError
from toril.queues.payloads import PayloadType

SECRET = "hunter2hunter2"


class Login(BaseModel):
    user: str
    password: SecretStr
    note: str | None = None


class PlainLogin(Login):
    @field_serializer("password", when_used="json")
    def in_plain(self, value: SecretStr) -> str:
        return value.get_secret_value()


@pytest.mark.parametrize("value", [{"user": "ada", "password": SECRET}, Login(user="ada", password=SecretStr(SECRET))])
@pytest.mark.parametrize("kind", [Login, Any])
def test_a_secret_that_would_arrive_as_asterisks_is_refused_with_the_fix(value: object, kind: type) -> None:
    if kind is Any and isinstance(value, dict):
        value = {"login": [Login(user="ada", password=SecretStr(SECRET))]}
    with pytest.raises(NotJsonError, match="asterisks") as caught:
        PayloadType[Any](kind).encode(value, "login")
    assert caught.value.path.endswith("password")
    assert "when_used=" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("secret", [SecretStr(SECRET), SecretBytes(SECRET.encode()), Secret[int](7)])
def test_secrets_of_every_kind_are_found_in_plain_containers(secret: object) -> None:
    with pytest.raises(NotJsonError) as caught:
        PayloadType[Any](Any).encode({"a": [1, {"b": secret}]}, "n")
    assert caught.value.path == "$.a[1].b"


def test_one_that_the_model_writes_in_plain_on_purpose_arrives_and_is_hidden_in_texts() -> None:
    kind = PayloadType[PlainLogin](PlainLogin)
    text = kind.encode(PlainLogin(user="ada", password=SecretStr(SECRET)), "login")
    arrived = kind.decode(text, "login", "1")
    assert arrived.password.get_secret_value() == SECRET
    assert SECRET not in repr(arrived) + str(arrived)


def test_asterisks_that_are_no_secret_travel() -> None:
    assert PayloadType[Any](Any).encode({"text": "**********"}, "n") == b'{"text":"**********"}'


def test_a_misfit_never_shows_the_value() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        PayloadType[Login](Login).decode(b'{"user": 1, "password": ["hunter2hunter2"]}', "login", "1")
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
