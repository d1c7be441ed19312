"""What counts as a mail address here."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

_ADDRESS: Final = re.compile(r"""[^\s@<>()\[\],;:\\"\x00-\x1f\x7f-\uffff]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?""")


def check_address(address: str) -> str:
    """Return the address, if SMTP can carry it as it stands: ASCII, one `@`, nothing quoted. Whether it exists, only mail can tell.

    Raises:
        ValueError: it is no address, or holds a line break, which could smuggle in headers or commands.
    """
    if _ADDRESS.fullmatch(address) is None or ".." in address:
        shown = address if len(address) <= 80 else address[:79] + "…"
        raise ValueError(f"{shown!r} is not a mail address such as 'ada@example.com'")
    return address


MailAddress: TypeAlias = Annotated[str, AfterValidator(check_address)]
