"""What `toril` offers, and that it costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import toril


def test_every_public_name_is_there() -> None:
    assert all(hasattr(toril, name) for name in toril.__all__)
    assert list(toril.__all__) == sorted(toril.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert set(toril.__all__) <= set(dir(toril))


def test_an_unknown_name_is_an_error_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'toril' has no attribute 'Quueue'"):
        getattr(toril, "Quueue")  # noqa: B009 -- type checkers know that it isn't there


def test_the_package_alone_imports_nothing_else() -> None:
    program = "import sys, toril; print(sorted(name for name in sys.modules if name.partition('.')[0] in {'toril', 'redis', 'pydantic'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("['toril']\n", "")


def test_everything_can_be_imported_with_a_star() -> None:
    program = "from toril import *; print(Queue.__name__, module.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("Queue module\n", "")
