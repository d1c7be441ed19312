"""What travels through the queues, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from app.email.address import MailAddress


def _web_address(link: str) -> str:
    if not link.startswith(("https://", "http://")):
        raise ValueError("a link must begin with https:// or http://")  # javascript: has no place in a mail
    return link


WebAddress = Annotated[str, AfterValidator(_web_address)]


class WireModel(BaseModel):
    """A model whose fields are written to the queue under their camel-case names, as Node producers and workers spell them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class WelcomeData(WireModel):
    """What the template `welcome` is filled with."""

    name: str
    verification_link: WebAddress = Field(
        validation_alias=AliasChoices("verificationLink", "verification_link"), serialization_alias="verificationLink"
    )


class WelcomeEmail(WireModel):
    """The payload of `welcome-email`."""

    type: Literal["welcome"] = "welcome"
    to: MailAddress
    data: WelcomeData


class BulkData(WireModel):
    """What the template `bulk` is filled with."""

    subject: str
    text: str


class BulkEmail(WireModel):
    """The payload of `bulk-email`: one mail of many."""

    type: Literal["bulk"] = "bulk"
    to: MailAddress
    data: BulkData


class Notice(WireModel):
    """The payload of `high-priority` and `normal`: a plain notice."""

    type: Literal["notice"] = "notice"
    to: MailAddress
    data: BulkData


class DailyReport(WireModel):
    """The payload of `daily-report`."""

    type: Literal["daily-report"] = "daily-report"
    recipients: list[MailAddress] = Field(min_length=1)


class ReportData(WireModel):
    """What the template `daily-report` is filled with."""

    day: str
    completed: int
    failed: int
    waiting: int
    active: int


class ReportResult(WireModel):
    """To whom a report was sent."""

    sent: list[MailAddress]


class Receipt(WireModel):
    """What a mail server said when it took a mail."""

    to: MailAddress
    message_id: str = Field(validation_alias=AliasChoices("messageId", "message_id"), serialization_alias="messageId")
    response: str


Email: TypeAlias = WelcomeEmail | BulkEmail | Notice
"""A mail to one person."""


class User(BaseModel):
    """Somebody who has just registered."""

    model_config = ConfigDict(frozen=True)

    name: str
    email: MailAddress
    verification_token: str = Field(repr=False)


TemplateData = Mapping[str, object] | BaseModel
"""What a template is filled with: by the Python names of a model's fields."""
