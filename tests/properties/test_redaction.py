"""No password of an address is ever shown, wherever it stands and whatever it holds; the hosts are."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from toril.errors import InvalidRedisUrlError
from toril.telemetry.redaction import redact_text, redact_url
from toril.wire.address import ServerAddress

PIECE = "S3KRET"
"""What no host, user or path below holds. Passwords are made of it and of what could be taken for the end of one."""

SINGLE = ("redis", "rediss", "valkey", "http")
SEVERAL = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

names = st.from_regex(r"[a-z]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(lambda one: f"[{one}]")
ports = st.one_of(st.just(""), st.integers(1, 65_535).map(lambda port: f":{port}"))
hosts = st.tuples(st.one_of(names, v4, v6), ports).map("".join)
users = st.from_regex(r"[a-z]{0,8}", fullmatch=True)


def passwords(signs: str) -> st.SearchStrategy[str]:
    """Pieces, with any of these signs between them, behind and (but for the first piece) before them."""
    return st.lists(st.text(signs, max_size=3), min_size=1, max_size=4).map(lambda between: PIECE + PIECE.join(between))


def quoted(text: str) -> str:
    return quote(text, safe="")


any_password = passwords("@:/?#&=,;%[]!$'()*+ \"<>|ä.")


@st.composite
def addresses(draw: st.DrawFn) -> tuple[str, list[str]]:
    """An address with a password in its right place, and its hosts."""
    scheme = draw(st.sampled_from(SINGLE + SEVERAL))
    shown = draw(st.lists(hosts, min_size=1, max_size=3 if scheme in SEVERAL else 1))
    password = draw(any_password.flatmap(lambda one: st.sampled_from([one, quoted(one)])))
    path = draw(st.sampled_from(["", "/", "/0", "/main", "/main/3"]))
    query = draw(st.one_of(st.just(""), any_password.map(lambda one: f"?sentinel_username=u&sentinel_password={quoted(one)}")))
    return f"{scheme}://{draw(users)}:{password}@{','.join(shown)}{path}{query}", shown


@given(addresses())
def test_a_password_in_its_place_is_hidden_and_the_hosts_are_shown(made: tuple[str, list[str]]) -> None:
    url, shown = made
    assert PIECE not in redact_url(url)
    assert f"***@{','.join(shown)}" in redact_url(url)


@given(addresses())
def test_neither_an_address_nor_the_error_about_it_holds_its_password(made: tuple[str, list[str]]) -> None:
    try:
        said = f"{(address := ServerAddress(made[0]))} {address!r}"
    except InvalidRedisUrlError as error:
        said = f"{error} {error!r}"
    assert PIECE not in said


@given(addresses(), st.sampled_from(["can't reach {}.", "url={}, next", '{{"url": "{}"}}', "({})"]))
def test_a_text_shows_no_encoded_password_either(made: tuple[str, list[str]], sentence: str) -> None:
    scheme, _, rest = made[0].partition("://")
    user_info, at, behind = rest.rpartition("@")
    user, _, password = user_info.partition(":")
    text = redact_text(sentence.format(f"{scheme}://{user}:{quoted(password)}{at}{behind}"))
    assert PIECE not in text
    assert ",".join(made[1]) in text


@given(st.sampled_from(SINGLE + SEVERAL), st.lists(hosts, max_size=2), st.one_of(st.just(""), names, v4, v6), passwords(":/?#&=,;%[]! .<"))
def test_a_password_where_the_port_should_be_is_hidden(scheme: str, before: list[str], host: str, password: str) -> None:
    before = before if scheme in SEVERAL else []
    url = f"{scheme}://{','.join([*before, f'{host}:{password}'])}/0"
    assert redact_url(url).startswith(f"{scheme}://{','.join([*before, f'{host}:***'])}")
    assert PIECE not in redact_url(url)
    with suppress(InvalidRedisUrlError):
        assert PIECE not in str(ServerAddress(url))


@given(st.sampled_from(SEVERAL), st.lists(hosts, min_size=1, max_size=4), st.sampled_from(["", "/main", "/main/3"]))
def test_an_address_without_a_password_is_shown_whole(scheme: str, shown: list[str], path: str) -> None:
    url = f"{scheme}://{','.join(shown)}{path}"
    assert redact_url(url) == url


@given(passwords("&;%+= "))
def test_a_raw_password_in_a_query_is_hidden(password: str) -> None:
    raw = password.replace("=", "")  # with that it could be any other key
    url = f"redis+sentinel://h:1/main?sentinel_password={raw}"
    assert PIECE not in redact_url(url)
    try:
        said = str(ServerAddress(url))
    except InvalidRedisUrlError as error:
        said = f"{error} {error!r}"
    assert PIECE not in said
