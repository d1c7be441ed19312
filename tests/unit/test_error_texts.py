"""The texts of errors read as sentences, whatever the part that somebody else wrote ends in."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

from toril import errors
from toril.errors import TorilError

CLASSES = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, TorilError)]
TELLING = [each for each in CLASSES if any("__init__" in vars(base) for base in each.__mro__ if issubclass(base, TorilError))]


@pytest.mark.parametrize("error", TELLING, ids=lambda error: error.__name__)
def test_a_reason_that_ends_in_a_full_stop_makes_no_two_of_them(error: type[TorilError]) -> None:
    hints = [str(each.annotation) for each in inspect.signature(error).parameters.values()]
    assert ".." not in str(error(*map(_told, hints)))


def _told(hint: str) -> object:
    """Something that fits a parameter with this annotation."""
    if "datetime" in hint:
        return datetime(2026, 1, 1, tzinfo=UTC)
    if "Mapping" in hint:
        return {"7": "it broke."}
    return 7 if "int" in hint else ["it broke."] if "Sequence" in hint else "it broke."


def test_every_error_has_one_address_and_its_place_in_the_tree() -> None:
    assert {error.__name__ for error in CLASSES} == set(errors.__all__)
    assert {error.__module__ for error in CLASSES} == {"toril.errors"}
    drawn = {
        line.replace("│", "").replace("├── ", "").replace("└── ", "").split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if line.strip()
    }
    assert set(errors.__all__) <= drawn
