"""TLS with a certificate authority of our own: to whom a connection is made, and to whom it isn't."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.bench import error_of
from tests.proxy import Proxy
from toril import Job, Queue, Worker, WorkerOptions
from toril.errors import InvalidRedisUrlError, ServerUnreachableError
from toril.testing import eventually
from toril.wire.connection import Server


@dataclass
class Tls:
    """A server behind TLS, and what its clients need."""

    url: str
    authority: Path
    certificate: Path
    key: Path


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls(toril_server_url: str, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Tls]:
    """A server that also wants to know its clients: they need a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # pyOpenSSL, which it can do without, has no types
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("client.example.com")
    files = Tls("", tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key")
    authority.cert_pem.write_to_path(str(files.authority))
    client.cert_chain_pems[0].write_to_path(str(files.certificate))
    client.private_key_pem.write_to_path(str(files.key))
    async with Proxy(toril_server_url, context) as proxy:
        files.url = proxy.url
        yield files


def url_of(tls: Tls, **more: object) -> str:
    words = {"ssl_ca_certs": tls.authority, "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key} | more
    return f"{tls.url}?{'&'.join(f'{word}={value}' for word, value in words.items() if value)}"


@pytest.mark.blocks_the_loop  # the standard library reads certificates when a connection is made
async def test_a_worker_works_by_tls_with_an_authority_of_ones_own(tls: Tls, prefix: str) -> None:
    async def handle(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- whatever came
        return job.data

    async with (
        Queue("q", prefix=prefix, url=url_of(tls)) as queue,
        Worker(queue, handle, WorkerOptions(lock_duration="2s", drain_delay="50ms")) as worker,
    ):
        job = await queue.add("x", {"n": 1})
        assert await job.result(timeout="10s") == {"n": 1}
        await eventually(lambda: _is(worker.is_ready))


@pytest.mark.blocks_the_loop
async def test_a_stranger_is_not_trusted(tls: Tls, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for more, words in (
        ({"ssl_ca_certs": None}, "certificate verify failed"),
        ({"ssl_ca_certs": other}, "certificate verify failed"),
        ({"ssl_ca_certs": tmp_path / "nowhere.pem"}, "No such file"),
        ({"ssl_ca_certs": None, "ssl_cert_reqs": "none"}, None),
    ):
        async with Server(url_of(tls, **more), patience_ms=0) as server:
            error = await error_of(server.commands.call("PING"))
        if words is None:
            assert error is None
        else:
            assert isinstance(error, ServerUnreachableError)
            assert words in error.reason


@pytest.mark.blocks_the_loop
async def test_another_host_than_the_certificate_names_is_not_trusted(tls: Tls) -> None:
    url = url_of(tls).replace("localhost", "127.0.0.1")
    async with Server(url, patience_ms=0) as server:
        error = await error_of(server.commands.call("PING"))
    assert isinstance(error, ServerUnreachableError)
    assert "127.0.0.1" in error.reason
    async with Server(url + "&ssl_check_hostname=false", patience_ms=0) as server:
        assert await server.commands.call("PING") == b"PONG"


@pytest.mark.blocks_the_loop
async def test_a_client_without_a_certificate_is_turned_away(tls: Tls) -> None:
    async with Server(url_of(tls, ssl_certfile=None, ssl_keyfile=None), patience_ms=0) as server:
        assert isinstance(await error_of(server.commands.call("PING")), ServerUnreachableError)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host?ssl_ca_certs=/x", "nothing may follow the path"),
        ("rediss://host?ssl_ca_cert=/x", "unknown option 'ssl_ca_cert'; here may stand ssl_ca_certs"),
        ("rediss://host?ssl_ca_certs=", "ssl_ca_certs must be a path"),
        ("rediss://host?ssl_cert_reqs=optional", "ssl_cert_reqs must be required or none, not 'optional'"),
        ("redis+sentinel://host", "the name of the primary is missing"),
        ("redis+sentinel://host/name/x", "the database must be a number"),
        ("redis+cluster://host/1", "a Cluster has no databases"),
        ("redis://one,two", "several hosts are for redis+sentinel:// and redis+cluster:// only"),
        ("redis+cluster://one,,two", "the host is missing"),
        ("redis+sentinel://host/name?sentinel_pass=x", "unknown option 'sentinel_pass'"),
    ],
)
def test_an_address_with_options_that_make_no_sense_is_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidRedisUrlError) as caught:
        Server(url)
    assert reason in str(caught.value)


def test_the_login_at_the_sentinels_is_never_shown() -> None:
    server = Server("redis+sentinel://app:hunter2@one:1,two/name/3?sentinel_username=watch&sentinel_password=hunter3")
    address = server.address
    assert (address.hosts, address.service, address.connection_options["db"]) == ((("one", 1), ("two", 26_379)), "name", 3)
    assert (address.connection_options["password"], address.sentinel_options["password"]) == ("hunter2", "hunter3")
    assert "hunter" not in f"{address} {address!r} {server.commands!r}"


def _is(fact: object) -> None:
    assert fact
