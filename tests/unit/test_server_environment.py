"""With which allocator the embedded server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.servers import OwnServer
from toril.embedded import binary
from toril.embedded.binary import find_jemalloc, server_environment


def test_jemalloc_is_used_where_the_system_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(binary, "find_jemalloc", lambda: Path("/usr/lib64/libjemalloc.so.2"))
    assert server_environment()["LD_PRELOAD"] == "/usr/lib64/libjemalloc.so.2"
    assert "GLIBC_TUNABLES" not in server_environment()
    monkeypatch.setattr(binary, "find_jemalloc", lambda: None)
    assert "LD_PRELOAD" not in server_environment()
    assert server_environment()["GLIBC_TUNABLES"].startswith("glibc.malloc.")


def test_what_somebody_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "theirs.so")
    monkeypatch.setattr(binary, "find_jemalloc", lambda: Path("/usr/lib64/libjemalloc.so.2"))
    assert server_environment()["LD_PRELOAD"] == "theirs.so"


async def test_the_server_runs_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = OwnServer(tmp_path_factory.mktemp("s"))
    await own.start()
    try:
        maps = await asyncio.to_thread(Path(f"/proc/{own.pid}/maps").read_text)
        assert ("libjemalloc" in maps) == (await asyncio.to_thread(find_jemalloc) is not None)
    finally:
        await own.end()
