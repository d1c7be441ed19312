from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.email.models import BulkData, BulkEmail, Receipt, User, WelcomeData, WelcomeEmail

WIRE = {
    "type": "welcome",
    "to": "ada@example.com",
    "data": {"name": "Ada", "verificationLink": "https://example.com/verify/t0ken"},
}


def test_a_welcome_mail_looks_on_the_wire_as_the_contract_says() -> None:
    mail = WelcomeEmail(to="ada@example.com", data=WelcomeData(name="Ada", verification_link="https://example.com/verify/t0ken"))
    assert mail.model_dump(mode="json") == WIRE
    assert WelcomeEmail.model_validate(WIRE) == mail
    assert WelcomeEmail.model_validate_json(mail.model_dump_json()) == mail


def test_a_receipt_survives_the_wire() -> None:
    receipt = Receipt(to="ada@example.com", message_id="<1@example.com>", response="taken")
    assert receipt.model_dump() == {"to": "ada@example.com", "messageId": "<1@example.com>", "response": "taken"}
    assert Receipt.model_validate(receipt.model_dump()) == receipt


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "@example.com", "a b@example.com", "a@b@c", "a@example.com\n", "a@-x", "ü@example.com"]
)
def test_what_is_no_address_is_refused_when_the_mail_is_enqueued(address: str) -> None:
    with pytest.raises(ValidationError, match="is not a mail address"):
        BulkEmail(to=address, data=BulkData(subject="s", text="t"))


def test_a_link_that_is_no_web_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="a link must begin with"):
        WelcomeData(name="Ada", verification_link="javascript:alert(1)")


def test_the_verification_token_is_not_part_of_the_text_of_a_user() -> None:
    assert "t0ken" not in repr(User(name="Ada", email="ada@example.com", verification_token="t0ken"))
