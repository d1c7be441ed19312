"""The folder of the development mailbox: mails as `.eml` files, and what it remembers about mails it refused.

Several workers may share one folder: every step is one atomic operation of the file system.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Final

from toril.clock import Clock

_LONGEST_ADDRESS_IN_NAME: Final = 100


@dataclass(frozen=True)
class StoredMail:
    """One file of the mailbox."""

    path: Path
    to: str
    """The address that it was delivered to, which need not be the one in its To header."""

    message: EmailMessage


class MailboxFolder:
    """Writes and reads one folder. All methods block; call them in a thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self._clock = path, clock
        self._refusals = path / ".refused"
        self._numbers = count()

    def create(self) -> None:
        """Make the folder if there is none."""
        self._refusals.mkdir(parents=True, exist_ok=True)

    def store(self, to: str, content: bytes) -> Path:
        """Write one mail. Nobody ever sees half of it, and the names sort by time of arrival."""
        moment = datetime.fromtimestamp(self._clock.now_ms() / 1_000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        # The number keeps the order within a millisecond, the random part keeps processes that share the folder apart.
        path = self.path / f"{moment}-{next(self._numbers):06d}-{secrets.token_hex(3)}-{_safe(to)}.eml"
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_bytes(b"X-Mailbox-To: " + to.encode("ascii", "backslashreplace") + b"\r\n" + content)
        unfinished.replace(path)
        return path

    def mails(self) -> list[StoredMail]:
        """All mails, oldest first."""
        return [self._read(path) for path in sorted(self.path.glob("*.eml"))]

    def refuse(self, to: str, subject: str, *, times: int) -> bool:
        """Whether to refuse this mail once more: True `times` times, then False, and from then on anew.

        Mails are told apart by address and subject, so that a job's later tries are known again, whichever process receives
        them, and other mails to the same address have counts of their own.
        """
        name = hashlib.sha256(f"{to}\n{subject}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
        marks = [self._refusals / f"{name}-{number}" for number in range(times)]
        for mark in marks:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            return True
        for mark in marks:
            mark.unlink(missing_ok=True)
        return False

    @staticmethod
    def _read(path: Path) -> StoredMail:
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        return StoredMail(path, str(message["X-Mailbox-To"]), message)


def _safe(address: str) -> str:
    """The address as a part of a file's name: nothing that could leave the folder, hide the file or trouble a shell."""
    return re.sub(r"[^A-Za-z0-9@._+-]", "_", address)[:_LONGEST_ADDRESS_IN_NAME]
