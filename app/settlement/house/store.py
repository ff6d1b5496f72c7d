"""
The house's payments, refunds and balances beside the books.

Locks are taken in the order: payment or refund, balance, accounts of the ledger.
Every movement of money and its transfer are one transaction.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.settlement.house.rules import (
    BALANCE,
    HousePayment,
    Movement,
    PaymentState,
    post_balance_payment,
    post_balance_refund,
    post_top_up,
)
from app.settlement.store import post_transfers
from app.storage.shards import Connection

_PAYMENT: Final = """number, provider, amount_minor, currency::text AS currency, state,
    remittance_code, reference, paid_at"""
INSERT_PAYMENT: Final = """
INSERT INTO house_payments (number, provider, remittance_code, amount_minor, currency, state)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (number) DO NOTHING"""
SELECT_PAYMENT: Final = f"SELECT {_PAYMENT} FROM house_payments WHERE number = $1"
LOCK_PAYMENT: Final = f"{SELECT_PAYMENT} FOR UPDATE"
LOCK_PAYMENTS_OF_CODES: Final = f"""
SELECT {_PAYMENT} FROM house_payments WHERE remittance_code = ANY ($1::text[])
ORDER BY number FOR UPDATE"""
MARK_PAID: Final = """
UPDATE house_payments SET state = 'paid', reference = $2, paid_at = $3, note = $4, actor = $5
WHERE number = $1 AND state = 'open'
RETURNING number"""
CLOSE_PAYMENT: Final = """
UPDATE house_payments SET state = 'closed' WHERE number = $1 AND state = 'open'"""
# Two proofs with one reference wait for each other, then one of them sees the other.
LOCK_REFERENCE: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 29))"
SELECT_PAID_BY: Final = """
SELECT number FROM house_payments WHERE provider = $1 AND reference = $2"""

_REFUND: Final = """r.number, r.payment_number, p.provider, r.amount_minor,
    r.currency::text AS currency, r.state, r.reference, r.requested_at"""
INSERT_REFUND: Final = """
INSERT INTO house_refunds (number, payment_number, amount_minor, currency, state)
VALUES ($1, $2, $3, $4, 'processing')
ON CONFLICT (number) DO NOTHING"""
SELECT_REFUND: Final = f"""
SELECT {_REFUND} FROM house_refunds r JOIN house_payments p ON p.number = r.payment_number
WHERE r.number = $1"""
LOCK_REFUND: Final = f"{SELECT_REFUND} FOR UPDATE OF r"
MARK_REFUNDED: Final = """
UPDATE house_refunds
SET state = 'succeeded', reference = $2, note = $3, actor = $4, succeeded_at = now()
WHERE number = $1 AND state = 'processing'
RETURNING succeeded_at"""

# The guard and the CHECK say the same: a balance that is too low is not touched.
SPEND: Final = """
UPDATE balances SET balance_minor = balance_minor - $3, entries = entries + 1
WHERE shopper = $1 AND currency = $2 AND balance_minor >= $3
RETURNING id, entries, balance_minor"""
OPEN_BALANCE: Final = """
INSERT INTO balances (id, shopper, currency, balance_minor, entries) VALUES ($1, $2, $3, 0, 0)
ON CONFLICT (shopper, currency) DO NOTHING"""
ADD: Final = """
UPDATE balances SET balance_minor = balance_minor + $3, entries = entries + 1
WHERE shopper = $1 AND currency = $2
RETURNING id, entries, balance_minor"""
RETURN_TO_BALANCE: Final = """
UPDATE balances SET balance_minor = balance_minor + $2, entries = entries + 1
WHERE id = (SELECT balance_id FROM balance_entries WHERE kind = 'payment' AND reference = $1)
RETURNING id, entries, balance_minor"""
INSERT_ENTRY: Final = """
INSERT INTO balance_entries
    (balance_id, ordinal, kind, reference, amount_minor, balance_after_minor)
VALUES ($1, $2, $3, $4, $5, $6)"""
SELECT_BALANCES: Final = """
SELECT id, shopper, currency::text AS currency, balance_minor, entries
FROM balances WHERE shopper = $1 ORDER BY currency"""
SELECT_ENTRIES: Final = """
SELECT e.ordinal, e.kind, e.reference, e.amount_minor, e.balance_after_minor, e.recorded_at
FROM balance_entries e
WHERE e.balance_id = $1 AND e.ordinal < $2 ORDER BY e.ordinal DESC LIMIT $3"""
SELECT_OWN_BALANCE: Final = """
SELECT id FROM balances WHERE id = $1 AND shopper = $2"""

TAKE_REQUEST: Final = """
INSERT INTO house_requests (kind, idempotency_key, fingerprint, answer)
VALUES ($1, $2, $3, 'null') ON CONFLICT (kind, idempotency_key) DO NOTHING
RETURNING kind"""
SELECT_REQUEST: Final = """
SELECT fingerprint, answer FROM house_requests WHERE kind = $1 AND idempotency_key = $2"""
ANSWER_REQUEST: Final = """
UPDATE house_requests SET answer = $3 WHERE kind = $1 AND idempotency_key = $2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseRefund:
    """Money on its way back, by hand or to a balance; `provider` is its payment's."""

    number: str
    payment_number: str
    provider: str
    amount_minor: int
    currency: str
    state: str
    reference: str | None
    requested_at: datetime

    @property
    def is_settled(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What a payment was paid by: proof, bank line or entry of a balance."""

    reference: str
    paid_at: datetime
    note: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceMoved:
    """One entry that was written: whose, which, and what is left."""

    balance_id: str
    ordinal: int
    balance_minor: int


async def insert_payment(connection: Connection, payment: HousePayment) -> HousePayment:
    """Write a payment unless its number is known; return the row that stands, locked."""
    await connection.execute(
        INSERT_PAYMENT,
        payment.number,
        payment.provider,
        payment.remittance_code,
        payment.amount_minor,
        payment.currency,
        payment.state,
    )
    known = await lock_payment(connection, payment.number)
    assert known is not None, payment.number
    return known


async def lock_payment(connection: Connection, number: str) -> HousePayment | None:
    """Read a payment FOR UPDATE."""
    row = await connection.fetchrow(LOCK_PAYMENT, number)
    return None if row is None else _payment(row)


async def read_payment(connection: Connection, number: str) -> HousePayment | None:
    """Read a payment."""
    row = await connection.fetchrow(SELECT_PAYMENT, number)
    return None if row is None else _payment(row)


async def lock_payments_of_codes(
    connection: Connection, codes: Sequence[str]
) -> list[HousePayment]:
    """Read the payments that some remittance codes name, FOR UPDATE."""
    return [_payment(row) for row in await connection.fetch(LOCK_PAYMENTS_OF_CODES, list(codes))]


async def mark_paid(connection: Connection, number: str, paid: Paid) -> None:
    """Let an open payment, locked by the caller, be paid."""
    moved = await connection.fetchval(
        MARK_PAID, number, paid.reference, paid.paid_at, paid.note, paid.actor
    )
    assert moved is not None, f"locked and open, and yet not paid: {number}"


async def close_payment(connection: Connection, payment: HousePayment) -> None:
    """Let nobody pay this number any more; one that was never heard of stays so for ever."""
    await insert_payment(connection, payment)
    await connection.execute(CLOSE_PAYMENT, payment.number)


async def find_paid_by(connection: Connection, provider: str, reference: str) -> str | None:
    """Return the payment that a proof has paid; nobody else may use it until the commit."""
    await connection.execute(LOCK_REFERENCE, f"{provider}/{reference}")
    number = await connection.fetchval(SELECT_PAID_BY, provider, reference)
    return None if number is None else str(number)


async def insert_refund(
    connection: Connection, number: str, payment_number: str, amount_minor: int, currency: str
) -> HouseRefund:
    """Write a refund unless its number is known; return the row that stands, locked."""
    await connection.execute(INSERT_REFUND, number, payment_number, amount_minor, currency)
    refund = await lock_refund(connection, number)
    assert refund is not None, number
    return refund


async def lock_refund(connection: Connection, number: str) -> HouseRefund | None:
    """Read a refund FOR UPDATE."""
    row = await connection.fetchrow(LOCK_REFUND, number)
    return None if row is None else HouseRefund(**dict(row))


async def read_refund(connection: Connection, number: str) -> HouseRefund | None:
    """Read a refund."""
    row = await connection.fetchrow(SELECT_REFUND, number)
    return None if row is None else HouseRefund(**dict(row))


async def mark_refunded(
    connection: Connection, number: str, reference: str, note: str | None, actor: str | None
) -> datetime:
    """Note that a refund, locked by the caller and not settled, was paid back."""
    at = await connection.fetchval(MARK_REFUNDED, number, reference, note, actor)
    assert isinstance(at, datetime), f"locked and waiting, and yet not paid back: {number}"
    return at


async def spend(connection: Connection, shopper: str, payment: HousePayment, now: datetime) -> bool:
    """
    Pay an open payment, locked by the caller, from its shopper's balance.

    Returns:
        False when the balance does not cover it; nothing is written then.
    """
    row = await connection.fetchrow(SPEND, shopper, payment.currency, payment.amount_minor)
    if row is None:
        return False
    moved = await _enter(connection, row, "payment", payment.number, -payment.amount_minor)
    reference = f"{moved.balance_id}.{moved.ordinal}"
    await mark_paid(connection, payment.number, Paid(reference=reference, paid_at=now))
    told = Movement(
        reference=payment.number,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        moved_at=now,
    )
    await post_transfers(connection, [post_balance_payment(told)])
    return True


async def give_back(connection: Connection, refund: HouseRefund) -> None:
    """Pay a refund, locked by the caller and not settled, back to the balance it came from."""
    assert refund.provider == BALANCE
    row = await connection.fetchrow(RETURN_TO_BALANCE, refund.payment_number, refund.amount_minor)
    assert row is not None, f"paid from a balance, and yet from none: {refund.payment_number}"
    moved = await _enter(connection, row, "refund", refund.number, refund.amount_minor)
    reference = f"{moved.balance_id}.{moved.ordinal}"
    at = await mark_refunded(connection, refund.number, reference, None, None)
    told = Movement(
        reference=refund.number,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        moved_at=at,
    )
    await post_transfers(connection, [post_balance_refund(told)])


async def add_to_balance(connection: Connection, shopper: str, told: Movement) -> BalanceMoved:
    """Top a shopper's balance up; the first top-up opens it."""
    balance_id = f"bal_{secrets.token_hex(16)}"
    await connection.execute(OPEN_BALANCE, balance_id, shopper, told.currency)
    row = await connection.fetchrow(ADD, shopper, told.currency, told.amount_minor)
    assert row is not None, "opened by the statement before"
    moved = await _enter(connection, row, "top_up", told.reference, told.amount_minor)
    await post_transfers(connection, [post_top_up(told)])
    return moved


async def balances_of(connection: Connection, shopper: str) -> list[Mapping[str, Any]]:
    """Return a shopper's balances by currency."""
    return [dict(row) for row in await connection.fetch(SELECT_BALANCES, shopper)]


async def is_own_balance(connection: Connection, balance_id: str, shopper: str) -> bool:
    """Whether a balance is there and the shopper's."""
    return await connection.fetchval(SELECT_OWN_BALANCE, balance_id, shopper) is not None


async def entries_before(
    connection: Connection, balance_id: str, ordinal: int, rows_max: int
) -> list[Mapping[str, Any]]:
    """Return the entries of a balance below a number, newest first."""
    rows = await connection.fetch(SELECT_ENTRIES, balance_id, ordinal, rows_max)
    return [dict(row) for row in rows]


async def take_request(
    connection: Connection, kind: str, key: str, fingerprint: bytes
) -> tuple[bytes, Any] | None:
    """
    Take an idempotency key, in the transaction that does what was asked.

    Returns:
        None when it is new; else the fingerprint and the answer it was taken with.
    """
    if await connection.fetchval(TAKE_REQUEST, kind, key, fingerprint) is not None:
        return None
    row = await connection.fetchrow(SELECT_REQUEST, kind, key)
    assert row is not None, (kind, key)
    return row["fingerprint"], row["answer"]


async def answer_request(connection: Connection, kind: str, key: str, answer: object) -> None:
    """Keep what a request was answered with."""
    await connection.execute(ANSWER_REQUEST, kind, key, answer)


async def _enter(
    connection: Connection, row: Mapping[str, Any], kind: str, reference: str, amount_minor: int
) -> BalanceMoved:
    moved = BalanceMoved(
        balance_id=row["id"], ordinal=row["entries"], balance_minor=row["balance_minor"]
    )
    await connection.execute(
        INSERT_ENTRY,
        moved.balance_id,
        moved.ordinal,
        kind,
        reference,
        amount_minor,
        moved.balance_minor,
    )
    return moved


def _payment(row: Mapping[str, Any]) -> HousePayment:
    return HousePayment(**{**dict(row), "state": PaymentState(row["state"])})
