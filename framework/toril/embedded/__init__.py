"""A private Valkey server that the processes of one project share: the first one starts it, the last one stops it."""

from __future__ import annotations

from toril.embedded.folder import default_folder
from toril.embedded.server import EmbeddedServer, ensure_server

__all__ = ["EmbeddedServer", "default_folder", "ensure_server"]
