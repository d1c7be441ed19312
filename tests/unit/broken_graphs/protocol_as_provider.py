"""A Protocol is listed where its implementation belongs."""

from __future__ import annotations

from typing import Protocol

from toril import module


class Storage(Protocol):
    def put(self, name: str, content: bytes) -> None: ...


class DiskStorage:
    def put(self, name: str, content: bytes) -> None: ...


class Uploads:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage


@module(providers=[Storage, Uploads])
class AppModule: ...
