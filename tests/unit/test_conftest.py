"""The tests' own plugin."""

from __future__ import annotations

import pytest

from tests import conftest


def test_without_xdist_its_hook_is_no_mistake() -> None:
    plugins = pytest.PytestPluginManager()
    plugins.register(conftest)
    plugins.check_pending()
