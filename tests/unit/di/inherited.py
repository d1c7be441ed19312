"""A base class for test_signature, whose annotations mean what they mean in this file."""

from __future__ import annotations


class Local: ...


class Inherited:
    def __init__(self, local: Local) -> None:
        self.local = local
