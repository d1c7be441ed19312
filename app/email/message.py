"""Makes mails out of templates: MIME with a text and an HTML part."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import Final

import jinja2
from pydantic import BaseModel

from app.email.address import check_address
from app.email.errors import UnusableMailError
from app.email.models import TemplateData

TEMPLATES: Final = Path(__file__).parent / "templates"
_POLICY: Final = policy.SMTP.clone(cte_type="7bit")  # not every server takes 8-bit mail


@dataclass(frozen=True)
class RenderedMail:
    """A filled template."""

    subject: str
    text: str
    html: str


class MailTemplates:
    """The templates of one folder: `name/subject.txt`, `name/body.txt` and `name/body.html`.

    All are read and compiled when it is made, so that a mistake in one shows at start and rendering never touches a file.
    """

    def __init__(self, folder: Path = TEMPLATES) -> None:
        sources = {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".html", ".txt")
        }
        self._environment = jinja2.Environment(
            loader=jinja2.DictLoader(sources),
            autoescape=jinja2.select_autoescape(["html"]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            auto_reload=False,
        )
        self.names: Final = sorted(name.removesuffix("/subject.txt") for name in sources if name.endswith("/subject.txt"))
        for name in sources:
            self._environment.get_template(name)

    def render(self, name: str, data: TemplateData) -> RenderedMail:
        """Fill a template.

        Raises:
            UnusableMailError: there is no such template, or data lacks something that it shows.
        """
        if name not in self.names:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.names)}"
            raise UnusableMailError(f"template {name!r}", f"does not exist; {hint}")
        values = dict(data) if not isinstance(data, BaseModel) else {key: getattr(data, key) for key in type(data).model_fields}
        try:
            subject, text, html = (
                self._environment.get_template(f"{name}/{part}").render(values) for part in ("subject.txt", "body.txt", "body.html")
            )
        except jinja2.TemplateError as error:
            raise UnusableMailError(f"template {name!r}", str(error)) from error
        return RenderedMail(subject.strip(), text, html)


def build_message(sender: str, to: str, mail: RenderedMail, *, now_ms: int) -> EmailMessage:
    """The mail with its headers, as multipart/alternative.

    Raises:
        UnusableMailError: an address that is none, or a line break in address or subject, which would let data add headers.
    """
    for what, address in (("sender", parseaddr(sender)[1]), ("recipient", to)):
        try:
            check_address(address)
        except ValueError as error:
            raise UnusableMailError(what, str(error)) from None
    for what, header in (("sender", sender), ("subject", mail.subject)):
        if any(ord(char) < 32 or char in "\x7f\x85\u2028\u2029" for char in header):
            raise UnusableMailError(what, f"a header can't hold line breaks or control characters: {header!r}")
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now_ms / 1_000, UTC))
    message["Message-ID"] = make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2])
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message
