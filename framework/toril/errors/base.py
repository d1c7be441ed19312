"""The root of the tree."""

from __future__ import annotations


class TorilError(Exception):
    """Base of all errors of this library."""
