"""Bank lines beside the books: each once, in suspense until it pays or goes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.settlement.house import store
from app.settlement.house.rules import (
    HousePayment,
    Movement,
    Verdict,
    post_bank_line,
    post_line_return,
    post_match,
)
from app.settlement.store import post_transfers
from app.storage.shards import Connection

# Imports and what operators do by hand come one after the other: two that named the
# same payments in another order would wait for each other in a circle.
LOCK_LINES: Final = "SELECT pg_advisory_xact_lock(hashtextextended('bank lines', 29))"

_LINE: Final = """reference, amount_minor, currency::text AS currency, codes, booked_at, state,
    reason, payment_number, return_reference, imported_at"""
INSERT_LINE: Final = """
INSERT INTO bank_lines (reference, amount_minor, currency, codes, booked_at, state, reason)
VALUES ($1, $2, $3, $4, $5, 'suspense', $6)
ON CONFLICT (reference) DO NOTHING
RETURNING reference"""
SELECT_LINE: Final = f"SELECT {_LINE} FROM bank_lines WHERE reference = $1"
MATCH_LINE: Final = """
UPDATE bank_lines
SET state = 'matched', reason = $3, payment_number = $2, settled_at = now()
WHERE reference = $1 AND state = 'suspense'
RETURNING settled_at"""
RETURN_LINE: Final = """
UPDATE bank_lines
SET state = 'returned', reason = 'sent_back', return_reference = $2, settled_at = now()
WHERE reference = $1 AND state = 'suspense'
RETURNING settled_at"""
SELECT_LINES: Final = f"""
SELECT {_LINE} FROM bank_lines
WHERE ($1::text IS NULL OR state = $1) AND reference > $2 ORDER BY reference LIMIT $3"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankLine:
    """One line as it stands; `codes` is what in its remark looked like one."""

    reference: str
    amount_minor: int
    currency: str
    codes: Sequence[str]
    booked_at: datetime
    state: str
    reason: str
    payment_number: str | None
    return_reference: str | None
    imported_at: datetime

    def is_same_money(self, amount_minor: int, currency: str) -> bool:
        return (self.amount_minor, self.currency) == (amount_minor, currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """A line of a statement, its remark already read."""

    reference: str
    amount_minor: int
    currency: str
    codes: Sequence[str]
    booked_at: datetime


async def lock_lines(connection: Connection) -> None:
    """Let nobody else import or settle a line until the transaction ends."""
    await connection.execute(LOCK_LINES)


async def insert_line(connection: Connection, new: NewLine, verdict: Verdict) -> bool:
    """Take a line into suspense and post it; False if its reference is known."""
    reference = await connection.fetchval(
        INSERT_LINE,
        new.reference,
        new.amount_minor,
        new.currency,
        list(new.codes),
        new.booked_at,
        verdict,
    )
    if reference is None:
        return False
    told = Movement(
        reference=new.reference,
        amount_minor=new.amount_minor,
        currency=new.currency,
        moved_at=new.booked_at,
    )
    await post_transfers(connection, [post_bank_line(told)])
    return True


async def read_line(connection: Connection, reference: str) -> BankLine | None:
    """Read a line."""
    row = await connection.fetchrow(SELECT_LINE, reference)
    return None if row is None else BankLine(**dict(row))


async def match_line(
    connection: Connection, reference: str, payment: HousePayment, reason: str
) -> None:
    """Let a line in suspense pay an open payment of its amount; both locked by the caller."""
    at = await connection.fetchval(MATCH_LINE, reference, payment.number, reason)
    assert isinstance(at, datetime), f"locked and in suspense, and yet not matched: {reference}"
    await store.mark_paid(connection, payment.number, store.Paid(reference=reference, paid_at=at))
    told = Movement(
        reference=reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        moved_at=at,
    )
    await post_transfers(connection, [post_match(told)])


async def return_line(connection: Connection, line: BankLine, return_reference: str) -> None:
    """Note that a line in suspense, locked by the caller, was sent back."""
    at = await connection.fetchval(RETURN_LINE, line.reference, return_reference)
    assert isinstance(at, datetime), f"locked and in suspense, and yet there: {line.reference}"
    told = Movement(
        reference=line.reference,
        amount_minor=line.amount_minor,
        currency=line.currency,
        moved_at=at,
    )
    await post_transfers(connection, [post_line_return(told)])


async def lines_after(
    connection: Connection, state: str | None, reference: str, rows_max: int
) -> list[Mapping[str, Any]]:
    """Return lines by reference, those of one state or all."""
    rows = await connection.fetch(SELECT_LINES, state, reference, rows_max)
    return [dict(row) for row in rows]
