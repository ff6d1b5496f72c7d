"""
Many captures in one transaction: one statement looks and locks, one writes.

What `orders.store.mark_paid` and `payments.store` do for one payment in ten round trips, for the
plain case: a pending or closing order is paid. Orders and attempts that somebody else has locked
are passed over, so that a batch waits for nobody's row and no two batches wait for each other.
"""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from app.kernel.errors import Conflict
from app.kernel.ids import OrderKey
from app.orders.order import ORDER_MACHINE, OrderEvent
from app.orders.store import NOTE_EVENTS
from app.payments.intent import ATTEMPT_MACHINE, Attempt, AttemptEvent, AttemptState
from app.payments.provider import Verified
from app.payments.store import ATTEMPT_COLUMNS, attempt_from_row
from app.storage.shards import Connection

# `disputed` is read at an older moment than the locked rows: the unique rules decide.
LOCK_CAPTURES: Final = f"""
SELECT {ATTEMPT_COLUMNS}, o.state AS order_state, o.merchant, o.group_id,
       EXISTS (SELECT FROM provider_events e
               WHERE (e.provider, e.account, e.notification_id)
                     = (told.provider, told.account, told.notification_id))
       OR EXISTS (SELECT FROM payment_attempts c
                  WHERE (c.provider, c.account, c.provider_number)
                        = (p.provider, p.account, told.provider_number)
                    AND c.state IN ('paid', 'paid_late')) AS disputed
FROM unnest($1::text[], $2::int[], $3::smallint[], $4::smallint[], $5::bigint[], $6::text[],
            $7::text[], $8::text[], $9::text[])
     AS told (number, sale, bucket, epoch, seq, provider, account, notification_id,
              provider_number)
JOIN orders o ON (o.sale, o.bucket, o.epoch, o.seq)
               = (told.sale, told.bucket, told.epoch, told.seq)
JOIN payment_attempts p ON p.number = told.number
FOR UPDATE OF o, p SKIP LOCKED"""

WRITE_CAPTURES: Final = f"""
WITH told AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::smallint[], $4::smallint[], $5::bigint[],
                         $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
                         $11::timestamptz[], $12::text[], $13::text[], $14::bytea[],
                         $15::timestamptz[])
        AS told (number, sale, bucket, epoch, seq, provider, account, notification_id,
                 provider_number, captured_minor, captured_at, fact, headers, raw, event_at)
), moved AS (
    UPDATE orders o
    SET last_event = o.last_event + 1, state = 'paid', reason = NULL, paid_at = told.captured_at
    FROM told
    WHERE (o.sale, o.bucket, o.epoch, o.seq) = (told.sale, told.bucket, told.epoch, told.seq)
      AND o.state = ANY($16::order_state[])
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event, told.number,
              told.provider
), noted AS (
    {
    NOTE_EVENTS.format(
        event="$17", actor="provider", detail="jsonb_build_object('payment_id', number)"
    )
}
), captured AS (
    UPDATE payment_attempts p
    SET state = 'paid', provider_number = told.provider_number,
        captured_minor = told.captured_minor, next_query_at = NULL, settled_at = now()
    FROM told WHERE p.number = told.number AND p.state = ANY($18::attempt_state[])
    RETURNING p.number
), left_fact AS (
    INSERT INTO outbox (kind, business_id, payload)
    SELECT 'payment_captured', number, fact::jsonb FROM told ON CONFLICT DO NOTHING
), kept AS (
    INSERT INTO provider_events (provider, account, notification_id, attempt_number, kind,
                                 outcome, headers, raw, event_at)
    SELECT provider, account, notification_id, number, 'payment', 'paid', headers::jsonb, raw,
           event_at
    FROM told
)
SELECT (SELECT count(*) FROM moved) AS orders, (SELECT count(*) FROM captured) AS attempts"""

_ORDER_SOURCES: Final = ORDER_MACHINE.sources(OrderEvent.PAYMENT_CAPTURED)
_ATTEMPT_SOURCES: Final = ATTEMPT_MACHINE.sources(AttemptEvent.CAPTURED)
# Why an attempt is closed is looked up before it takes money (`payments.capture`).
_PLAIN_SOURCES: Final = frozenset(_ATTEMPT_SOURCES) - {AttemptState.CLOSED}


# A value that it cannot hold, a rule, an index entry that would be too long.
_REFUSALS: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class CapturesRefused(Conflict):
    """One of several captures meets a rule of the database, and takes the others with it."""


@dataclass(frozen=True, slots=True)
class ToldCapture:
    """What is looked up of one message: whose payment it is, and what makes it unique."""

    number: str
    order_key: OrderKey
    provider: str
    account: str
    notification_id: str
    provider_number: str


@dataclass(frozen=True, slots=True)
class FoundCapture:
    """
    What a message met; its order and its attempt are locked.

    Attributes:
        takes_money: neither of them stands in the way of a capture, and it is no group's.
        disputed: the notification is known, or another attempt has the provider's payment.
    """

    attempt: Attempt
    merchant: str
    takes_money: bool
    disputed: bool


@dataclass(frozen=True, slots=True)
class NewCapture:
    """One order to be paid: what is written of it, and the message that says so."""

    told: ToldCapture
    captured_minor: int
    captured_at: datetime
    fact: dict[str, object]
    verified: Verified


async def lock_captures(
    connection: Connection, told: Sequence[ToldCapture]
) -> dict[str, FoundCapture]:
    """
    Read and lock orders and attempts, by the attempt's number; nobody else's locked ones.

    Raises:
        CapturesRefused: one of them cannot even be asked for.
    """
    with _refusing():
        rows = await connection.fetch(LOCK_CAPTURES, *_columns([_identity(one) for one in told]))
    return {row["number"]: _found(row) for row in rows}


async def write_captures(connection: Connection, captures: Sequence[NewCapture]) -> None:
    """
    Pay the orders: states, event, fact and message, all of all of them.

    Raises:
        CapturesRefused: some rule does not allow one of them; nothing may be committed.
    """
    rows = [(*_identity(one.told), *_content(one)) for one in captures]
    with _refusing():
        counts = await connection.fetchrow(
            WRITE_CAPTURES,
            *_columns(rows),
            _ORDER_SOURCES,
            OrderEvent.PAYMENT_CAPTURED,
            _ATTEMPT_SOURCES,
        )
    assert counts is not None, "an aggregate is always one row"
    assert tuple(counts) == (len(captures), len(captures)), counts


@contextlib.contextmanager
def _refusing() -> Generator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise CapturesRefused(sqlstate=error.sqlstate, rule=error.constraint_name) from error


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _identity(told: ToldCapture) -> tuple[object, ...]:
    return (
        told.number,
        *told.order_key,
        told.provider,
        told.account,
        told.notification_id,
        told.provider_number,
    )


def _content(capture: NewCapture) -> tuple[object, ...]:
    verified = capture.verified
    return (
        capture.captured_minor,
        capture.captured_at,
        msgspec.json.encode(capture.fact).decode(),
        msgspec.json.encode(dict(verified.headers)).decode(),
        verified.raw,
        verified.event.event_at,
    )


def _found(row: Mapping[str, Any]) -> FoundCapture:
    attempt = attempt_from_row(row)
    return FoundCapture(
        attempt=attempt,
        merchant=row["merchant"],
        takes_money=row["order_state"] in _ORDER_SOURCES
        and attempt.state in _PLAIN_SOURCES
        and row["group_id"] is None,
        disputed=row["disputed"],
    )
