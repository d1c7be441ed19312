"""With which code a command ends; `main.py`, docs/cli.md and the guide tell users."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""It failed, or some of it did; what was named doesn't exist; a check found what it looks for; the answer was no."""
USAGE: Final = 2
"""Wrong arguments, settings or modules; or it would destroy something, nobody can be asked, and `--yes` is missing."""
SERVER: Final = 3
"""The server can't be reached, or refuses."""
LEFT_BEHIND: Final = 4
"""A worker's handlers would not end at stop."""
INTERRUPTED: Final = 130
"""Ctrl-C."""
TERMINATED: Final = 143
"""SIGTERM before a worker has begun."""
