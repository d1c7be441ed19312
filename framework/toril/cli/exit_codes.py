"""With which code the command ends; `main.py` and the guide tell users."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
SERVER: Final = 3
LEFT_BEHIND: Final = 4
INTERRUPTED: Final = 130
