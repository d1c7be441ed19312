from __future__ import annotations

import doctest

import pytest

from toril.telemetry import redact, redact_text, redact_url, redaction
from toril.telemetry.redaction import redact_traceback


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:pw@localhost", "redis://:***@localhost"),
        ("redis://user:pw@localhost:6379/1?timeout=3", "redis://user:***@localhost:6379/1?timeout=3"),
        ("redis://user:p@w/x#y?z@localhost", "redis://user:***@localhost"),
        ("redis://user:a://b@localhost", "redis://user:***@localhost"),
        ("https://TOKEN@example.com/x", "https://***@example.com/x"),
        ("redis://:pw", "redis://:***"),
        ("redis://localhost:pw/2", "redis://localhost:***/2"),
        ("user:pw@localhost:6379", "user:***@localhost:6379"),
        ("rediss://db/0?password=pw&db=1&auth_token=x", "rediss://db/0?password=***&db=1&auth_token=***"),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no route to redis://:pw@a, then smtp://b:pw@c.", "no route to redis://:***@a, then smtp://b:***@c."),
        ('{"to":"https://a.b","cc":"x@y.z"}', '{"to":"https://a.b","cc":"x@y.z"}'),
        ("Settings(password='p w', port=25, api_key=abc)", "Settings(password='***', port=25, api_key=***)"),
        ('{"password": "p\\"w", "n": 1}', '{"password": "***", "n": 1}'),
        ("Authorization: Bearer abcdef.ghi-jkl", "Authorization: Bearer ***"),
        ("at 'redis://a:6379': no", "at 'redis://a:6379': no"),
        ("at 'redis://a:port': no", "at 'redis://a:***': no"),
        ("at 'redis://a:p'w@b', no", "at 'redis://a:***@b', no"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS invalid username-password pair or user is disabled."),
    ],
)
def test_secrets_inside_of_text_are_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    assert redact_text(text) == shown


def test_nested_values_are_hidden_by_their_keys() -> None:
    value = {"db": {"dbPassword": "x", "host": "h"}, "tokens_left": 3, "list": [{"token": 5}], "secret": None, "auth": True}
    assert redact(value) == {
        "db": {"dbPassword": "***", "host": "h"},
        "tokens_left": 3,
        "list": [{"token": "***"}],
        "secret": None,
        "auth": True,
    }


def test_a_value_that_holds_itself_ends() -> None:
    value: dict[str, object] = {}
    value["self"] = value
    assert "…" in str(redact(value))


def test_known_secrets_are_hidden_wherever_they_stand_and_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", ())
    redaction.hide_always(["open sesame", "open sesame 2", "short"])
    assert redact_text("say open sesame 2, not open sesame, in short") == "say ***, not ***, in short"
    assert redact_traceback("    shout('open sesame')\nError: open sesame") == "    shout('***')\nError: ***"
    redaction.hide_always(f"secret number {number}" for number in range(1_000))
    assert redact_text("secret number 999") == "***"
    assert "number 7" in redact_text("secret number 7")


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(redaction).failed == 0
