"""Which bank line pays what: a table; and the codes, however a bank writes them."""

import pytest

from app.settlement.house.rules import (
    HousePayment,
    PaymentState,
    Verdict,
    find_codes,
    judge_line,
    remittance_code,
)

NUMBER = "0123456789ABCDEFGHJKMNPQRS01"
CODE = remittance_code(NUMBER)


def payment(state="open", number=NUMBER):
    return HousePayment(
        number=number,
        provider="transfer",
        amount_minor=8_880,
        currency="CNY",
        state=PaymentState(state),
        remittance_code=remittance_code(number),
    )


@pytest.mark.parametrize(
    ("named", "amount_minor", "currency", "verdict"),
    [
        ([payment()], 8_880, "CNY", Verdict.MATCHED),
        ([payment()], 8_879, "CNY", Verdict.AMOUNT_DIFFERS),
        ([payment()], 8_881, "CNY", Verdict.AMOUNT_DIFFERS),
        ([payment()], 8_880, "USD", Verdict.CURRENCY_DIFFERS),
        ([payment("closed")], 8_880, "CNY", Verdict.PAYMENT_CLOSED),
        ([payment("paid")], 8_880, "CNY", Verdict.ALREADY_PAID),
        ([], 8_880, "CNY", Verdict.UNKNOWN_CODE),
        ([payment(), payment(number=NUMBER[:-1] + "2")], 8_880, "CNY", Verdict.SEVERAL_CODES),
    ],
)
def test_a_line_pays_exactly_what_it_names(named, amount_minor, currency, verdict):
    assert judge_line(named, amount_minor, currency) is verdict


@pytest.mark.parametrize(
    "remark",
    [
        CODE,
        CODE.lower(),
        f"payment for {CODE}, thank you",
        " ".join(CODE),
        f"{CODE[:4]}-{CODE[4:]}",
        f"货款{CODE}",
        f"{CODE} {CODE}",
        f"DB{CODE}",
    ],
)
def test_a_code_is_found_however_it_is_written(remark):
    assert CODE in find_codes(remark)


@pytest.mark.parametrize("remark", ["", "DB", CODE[:-1], "rent for June", "DB" + "I" * 12])
def test_what_is_no_code_is_not_found(remark):
    assert find_codes(remark) == []


def test_two_attempts_have_two_codes():
    assert remittance_code(NUMBER[:-1] + "2") != CODE
    assert len(CODE) == 14
