"""What people write in a test by mistake, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from toril import module
from toril.errors import InvalidCallError, InvalidOptionError
from toril.testing import Test, eventually, spy_on


class Mailer: ...


@module(providers=[Mailer])
class MailModule: ...


async def test_a_builder_is_not_entered() -> None:
    builder: Any = Test.create_testing_module(imports=[MailModule])
    with pytest.raises(InvalidCallError, match=r"add \.compile\(\)"):
        async with builder:
            pass


def test_an_override_must_say_by_what() -> None:
    override: Any = Test.create_testing_module(imports=[MailModule]).override_provider(Mailer)
    with pytest.raises(AttributeError, match=r"\.use_value"):
        override.compile()


def test_a_spy_wants_the_queue_and_not_its_name() -> None:
    name: Any = "mails"
    with pytest.raises(InvalidOptionError, match=r"spy_on\(t\.queue\('mails'\)\)"):
        spy_on(name)


async def test_eventually_wants_the_function_and_not_what_it_returned() -> None:
    async def probe() -> None: ...

    called: Any = probe()
    with pytest.raises(InvalidOptionError, match="pass the function itself"):
        await eventually(called)
