"""
What a bank line may pay, and which transfers the house's own movements become; pure.

The house is a gateway whose rows stand beside the books. A capture and a refund are
posted from the shards like any provider's; what is posted here is the other side of
the same receivable, in the transaction that decides it:

movement                debit                         credit
top-up                  bank                          stored_value
payment from a balance  stored_value                  provider.balance.receivable
refund to a balance     provider.balance.receivable   stored_value
bank line               bank                          suspense.bank_transfer
line matched            suspense.bank_transfer        provider.transfer.receivable
line sent back          suspense.bank_transfer        bank
transfer paid back      provider.transfer.receivable  bank
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.settlement import chart
from app.settlement.chart import Account, TransferKind
from app.settlement.transfer import Transfer, ledger_id

OFFLINE: Final = "offline"
TRANSFER: Final = "transfer"
BALANCE: Final = "balance"

_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_LENGTH: Final = 12
_CODE: Final = re.compile(f"(?=(DB[{_LETTERS}]{{{_CODE_LENGTH}}}))")
_NOISE: Final = re.compile(r"[^0-9A-Z]")
CODES_MAX: Final = 16  # candidates looked up for one remark


class PaymentState(StrEnum):
    """Where a payment stands at the house."""

    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"


class Verdict(StrEnum):
    """What becomes of a bank line, and why."""

    MATCHED = "matched"
    UNKNOWN_CODE = "unknown_code"
    SEVERAL_CODES = "several_codes"
    PAYMENT_CLOSED = "payment_closed"
    ALREADY_PAID = "already_paid"
    AMOUNT_DIFFERS = "amount_differs"
    CURRENCY_DIFFERS = "currency_differs"


_ENDED: Final = {
    PaymentState.PAID: Verdict.ALREADY_PAID,
    PaymentState.CLOSED: Verdict.PAYMENT_CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HousePayment:
    """One payment as the house knows it."""

    number: str
    provider: str
    amount_minor: int
    currency: str
    state: PaymentState
    remittance_code: str | None = None
    reference: str | None = None
    paid_at: datetime | None = None


def remittance_code(number: str) -> str:
    """Return the code that a shopper writes on the transfer for one attempt."""
    value = int.from_bytes(hashlib.sha256(number.encode()).digest()[:8])
    return "DB" + "".join(_LETTERS[(value >> (5 * place)) & 31] for place in range(_CODE_LENGTH))


def find_codes(remark: str) -> list[str]:
    """Return what looks like a code in a bank's remark, however it was spaced and cased."""
    plain = _NOISE.sub("", remark.upper())
    return list(dict.fromkeys(_CODE.findall(plain)))[:CODES_MAX]


def judge_line(named: Sequence[HousePayment], amount_minor: int, currency: str) -> Verdict:
    """
    Say whether a bank line pays the payment that it names.

    Args:
        named: the payments whose codes were found in its remark.
        amount_minor: of the line.
        currency: of the line.
    """
    if not named:
        return Verdict.UNKNOWN_CODE
    if len(named) > 1:
        return Verdict.SEVERAL_CODES
    (payment,) = named
    if payment.state is not PaymentState.OPEN:
        return _ENDED[payment.state]
    if payment.currency != currency:
        return Verdict.CURRENCY_DIFFERS
    if payment.amount_minor != amount_minor:
        return Verdict.AMOUNT_DIFFERS
    return Verdict.MATCHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Money that the house moved: its number, how much, and when."""

    reference: str
    amount_minor: int
    currency: str
    moved_at: datetime


def post_top_up(told: Movement) -> Transfer:
    stored = chart.stored_value(told.currency)
    return _transfer(TransferKind.TOP_UP, chart.bank(told.currency), stored, told)


def post_balance_payment(told: Movement) -> Transfer:
    receivable = chart.provider_receivable(BALANCE, told.currency)
    stored = chart.stored_value(told.currency)
    return _transfer(TransferKind.PROVIDER_SETTLEMENT, stored, receivable, told)


def post_balance_refund(told: Movement) -> Transfer:
    receivable = chart.provider_receivable(BALANCE, told.currency)
    stored = chart.stored_value(told.currency)
    return _transfer(TransferKind.PROVIDER_SETTLEMENT_RETURN, receivable, stored, told)


def post_bank_line(told: Movement) -> Transfer:
    suspense = chart.bank_transfer_suspense(told.currency)
    return _transfer(TransferKind.BANK_LINE, chart.bank(told.currency), suspense, told)


def post_match(told: Movement) -> Transfer:
    suspense = chart.bank_transfer_suspense(told.currency)
    receivable = chart.provider_receivable(TRANSFER, told.currency)
    return _transfer(TransferKind.PROVIDER_SETTLEMENT, suspense, receivable, told)


def post_line_return(told: Movement) -> Transfer:
    suspense = chart.bank_transfer_suspense(told.currency)
    return _transfer(TransferKind.BANK_LINE_RETURN, suspense, chart.bank(told.currency), told)


def post_paid_back(told: Movement) -> Transfer:
    receivable = chart.provider_receivable(TRANSFER, told.currency)
    bank = chart.bank(told.currency)
    return _transfer(TransferKind.PROVIDER_SETTLEMENT_RETURN, receivable, bank, told)


def _transfer(kind: TransferKind, debit: Account, credit: Account, told: Movement) -> Transfer:
    key = ("house", kind, debit.code, credit.code, told.reference)
    return Transfer(
        id=ledger_id(*key),
        batch_id=ledger_id("batch", *key),
        debit=debit,
        credit=credit,
        amount_minor=told.amount_minor,
        kind=kind,
        business_type="house",
        business_id=told.reference,
        reference=told.reference,
        effective_at=told.moved_at,
    )
