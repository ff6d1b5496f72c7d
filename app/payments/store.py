"""
Payments in Postgres: one function per business act, each a guarded statement.

Every act runs on the shard of the order it belongs to. Locks are taken in the
order: order row, attempt, refund; whoever only needs the later one takes only
that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.kernel.ids import OrderKey
from app.kernel.machine import Event, Machine, State
from app.orders.groups.store import REFUND_MEMBER
from app.orders.order import OrderState
from app.payments.intent import (
    ATTEMPT_MACHINE,
    REFUND_MACHINE,
    Attempt,
    AttemptEvent,
    AttemptNumber,
    AttemptState,
    Refund,
    RefundEvent,
    RefundNumber,
    RefundReason,
    RefundState,
)
from app.payments.provider import AttemptReference, PaySnapshot, Verified
from app.storage.shards import Connection, Shard

_ATTEMPT_NAMES: Final = (
    "number", "sale", "bucket", "epoch", "seq", "ordinal", "idempotency_key", "fingerprint",
    "provider", "account", "product", "amount_minor", "currency", "state", "action",
    "provider_number", "captured_minor", "refunded_minor", "expires_at", "created_at", "queries",
)  # fmt: skip
ATTEMPT_COLUMNS: Final = ", ".join(f"p.{name}" for name in _ATTEMPT_NAMES)
_OF_ORDER: Final = "p.sale = $1 AND p.bucket = $2 AND p.epoch = $3 AND p.seq = $4"

# Whatever unique rule stands in the way (the key, the one live attempt, the
# number), somebody else is starting a payment of this order right now.
INSERT_ATTEMPT: Final = f"""
INSERT INTO payment_attempts AS p
    (number, sale, bucket, epoch, seq, ordinal, idempotency_key, fingerprint, provider, account,
     product, amount_minor, currency, state, expires_at, next_query_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'created', $14, $15, $16)
ON CONFLICT DO NOTHING
RETURNING {ATTEMPT_COLUMNS}"""

SELECT_ATTEMPTS: Final = f"""
SELECT {ATTEMPT_COLUMNS} FROM payment_attempts p WHERE {_OF_ORDER} ORDER BY p.ordinal"""
SELECT_STANDING_ATTEMPTS: Final = f"""
SELECT {ATTEMPT_COLUMNS} FROM payment_attempts p
JOIN unnest($1::int[], $2::smallint[], $3::smallint[], $4::bigint[])
  AS wanted (sale, bucket, epoch, seq) USING (sale, bucket, epoch, seq)
WHERE p.state IN ('created', 'open', 'paid', 'paid_late')
ORDER BY p.number"""
SELECT_ATTEMPT: Final = f"SELECT {ATTEMPT_COLUMNS} FROM payment_attempts p WHERE p.number = $1"
SELECT_ATTEMPT_FOR_UPDATE: Final = f"{SELECT_ATTEMPT} FOR UPDATE"

MARK_ATTEMPT_OPEN: Final = f"""
UPDATE payment_attempts p SET state = 'open', action = $2
WHERE p.number = $1 AND p.state = ANY($3::attempt_state[])
RETURNING {ATTEMPT_COLUMNS}"""

# The key names what was begun, and nothing was: it goes on to the next route, or to
# the shopper's next try.
MARK_ATTEMPT_PASSED_ON: Final = """
UPDATE payment_attempts
SET state = $3, idempotency_key = idempotency_key || ':' || ordinal,
    next_query_at = NULL, settled_at = now()
WHERE number = $1 AND state = ANY($2::attempt_state[])
RETURNING number"""

MARK_ATTEMPT_CLOSED: Final = """
UPDATE payment_attempts SET state = 'closed', next_query_at = NULL, settled_at = now()
WHERE number = $1 AND state = ANY($2::attempt_state[])
RETURNING number"""

MARK_ATTEMPT_CAPTURED: Final = """
UPDATE payment_attempts
SET state = $2, provider_number = $3, captured_minor = $4, next_query_at = NULL,
    settled_at = now()
WHERE number = $1 AND state = ANY($5::attempt_state[])
RETURNING number"""

SELECT_OTHER_CAPTURE: Final = """
SELECT number FROM payment_attempts
WHERE provider = $1 AND account = $2 AND provider_number = $3 AND number <> $4
  AND state IN ('paid', 'paid_late')"""

CLAIM_ATTEMPTS: Final = f"""
UPDATE payment_attempts p
SET queries = p.queries + 1, next_query_at = now() + $2::int * interval '1 ms'
FROM (SELECT a.number, o.state AS order_state
      FROM payment_attempts a JOIN orders o USING (sale, bucket, epoch, seq)
      WHERE a.state IN ('created', 'open') AND a.next_query_at <= now()
      ORDER BY a.next_query_at LIMIT $1 FOR UPDATE OF a SKIP LOCKED) due
WHERE p.number = due.number
RETURNING {ATTEMPT_COLUMNS}, due.order_state"""

POSTPONE_QUERY: Final = """
UPDATE payment_attempts SET next_query_at = $2
WHERE number = $1 AND state IN ('created', 'open')"""

SELECT_PROVIDER_EVENT: Final = """
SELECT attempt_number, outcome FROM provider_events
WHERE provider = $1 AND account = $2 AND notification_id = $3"""

INSERT_PROVIDER_EVENT: Final = """
INSERT INTO provider_events
    (provider, account, notification_id, attempt_number, kind, outcome, headers, raw, event_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""

REFUND_COLUMNS: Final = """r.number, r.attempt_number, r.sale, r.bucket, r.epoch, r.seq, r.reason,
    r.late, r.amount_minor, r.currency, r.state, r.tries, r.requested_at, r.fingerprint, r.note,
    r.by_hand, r.doubled_at IS NOT NULL AS doubled, p.provider, p.account,
    p.provider_number AS attempt_provider_number, p.captured_minor, p.created_at, o.merchant"""

# The attempt's own CHECK keeps all its refunds within what was captured.
INSERT_REFUND: Final = """
WITH asked AS (
    INSERT INTO refunds (number, attempt_number, sale, bucket, epoch, seq, reason, late,
                         amount_minor, currency, idempotency_key, fingerprint, note, state)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'requested')
    RETURNING attempt_number, amount_minor
)
UPDATE payment_attempts p SET refunded_minor = p.refunded_minor + asked.amount_minor
FROM asked WHERE p.number = asked.attempt_number"""

REFUND_OF_ATTEMPT: Final = """FROM refunds r
JOIN payment_attempts p ON p.number = r.attempt_number
JOIN orders o ON (o.sale, o.bucket, o.epoch, o.seq) = (r.sale, r.bucket, r.epoch, r.seq)"""
SELECT_REFUND_FOR_UPDATE: Final = f"""
SELECT {REFUND_COLUMNS} {REFUND_OF_ATTEMPT}
WHERE r.number = $1 FOR UPDATE OF r"""
SELECT_REFUNDS: Final = f"""
SELECT {REFUND_COLUMNS} {REFUND_OF_ATTEMPT}
WHERE r.sale = $1 AND r.bucket = $2 AND r.epoch = $3 AND r.seq = $4
ORDER BY r.requested_at, r.number"""

CLAIM_REFUNDS: Final = f"""
UPDATE refunds r
SET tries = r.tries + 1,
    next_try_at = now()
        + ($2::int[])[least(r.tries + 1, cardinality($2::int[]))] * interval '1 ms'
FROM (SELECT number FROM refunds
      WHERE state IN ('requested', 'sent', 'unknown') AND next_try_at <= now()
      ORDER BY next_try_at LIMIT $1 FOR UPDATE SKIP LOCKED) due,
     payment_attempts p JOIN orders o USING (sale, bucket, epoch, seq)
WHERE r.number = due.number AND p.number = r.attempt_number
RETURNING {REFUND_COLUMNS}"""

SELECT_REFUND_BY_KEY: Final = f"""
SELECT {REFUND_COLUMNS} {REFUND_OF_ATTEMPT}
WHERE r.sale = $1 AND r.bucket = $2 AND r.epoch = $3 AND r.seq = $4 AND r.idempotency_key = $5"""

# Due at once: the worker's pause has passed while somebody saw to the cause.
MARK_REFUND: Final = """
UPDATE refunds
SET state = $2, provider_number = coalesce($3, provider_number),
    next_try_at = CASE WHEN $2::refund_state = 'requested' THEN now() ELSE next_try_at END,
    settled_at = CASE WHEN $2::refund_state IN ('succeeded', 'abnormal') THEN now() END
WHERE number = $1 AND state = ANY($4::refund_state[])
RETURNING number"""

SELECT_GROUP_REFUNDS: Final = """
SELECT id FROM outbox WHERE kind = $1 AND done_at IS NULL AND next_try_at <= now()
ORDER BY id LIMIT $2"""
TAKE_GROUP_REFUND: Final = """
UPDATE outbox SET done_at = now(), attempts = attempts + 1
WHERE id = (SELECT id FROM outbox WHERE id = $1 AND done_at IS NULL FOR UPDATE SKIP LOCKED)
RETURNING payload"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttempt:
    """What a new row of payment_attempts says."""

    number: AttemptNumber
    order_key: OrderKey
    ordinal: int
    idempotency_key: str
    fingerprint: bytes
    provider: str
    account: str
    product: str
    amount_minor: int
    currency: str
    created_at: datetime
    expires_at: datetime
    next_query_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """What a new row of refunds says."""

    number: RefundNumber
    attempt_number: AttemptNumber
    order_key: OrderKey
    reason: RefundReason
    late: bool
    amount_minor: int
    currency: str
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class DueAttempt:
    """An attempt to ask about, and where its order stood when it was taken."""

    attempt: Attempt
    order_state: OrderState


async def insert_attempt(connection: Connection, new: NewAttempt) -> Attempt | None:
    """
    Write an attempt in the transaction that holds its pending order FOR SHARE.

    Returns:
        None if another attempt of the order has the key or is alive.
    """
    row = await connection.fetchrow(
        INSERT_ATTEMPT,
        new.number,
        *new.order_key,
        new.ordinal,
        new.idempotency_key,
        new.fingerprint,
        new.provider,
        new.account,
        new.product,
        new.amount_minor,
        new.currency,
        new.expires_at,
        new.next_query_at,
        new.created_at,
    )
    return None if row is None else attempt_from_row(row)


async def attempts_of_order(connection: Connection, key: OrderKey) -> list[Attempt]:
    """Return every attempt of one order, the first one first."""
    return [attempt_from_row(row) for row in await connection.fetch(SELECT_ATTEMPTS, *key)]


async def standing_attempts(shard: Shard, keys: Sequence[OrderKey]) -> list[Attempt]:
    """Return the live and the captured attempts of many orders of one shard."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_STANDING_ATTEMPTS, *columns)
    return [attempt_from_row(row) for row in rows]


async def lock_attempt(connection: Connection, number: str) -> Attempt | None:
    """Read an attempt FOR UPDATE; its order is locked before."""
    row = await connection.fetchrow(SELECT_ATTEMPT_FOR_UPDATE, number)
    return None if row is None else attempt_from_row(row)


async def read_attempt(shard: Shard, number: AttemptNumber) -> Attempt:
    """Return an attempt that is known to exist."""
    async with shard.connection() as connection:
        row = await connection.fetchrow(SELECT_ATTEMPT, number)
    assert row is not None, number
    return attempt_from_row(row)


async def mark_open(
    shard: Shard, number: AttemptNumber, action: Mapping[str, object]
) -> Attempt | None:
    """Note how the shopper can pay; None if the attempt has gone on meanwhile."""
    sources = ATTEMPT_MACHINE.sources(AttemptEvent.OPENED)
    async with shard.connection() as connection:
        row = await connection.fetchrow(MARK_ATTEMPT_OPEN, number, dict(action), sources)
    return None if row is None else attempt_from_row(row)


async def mark_passed_on(shard: Shard, number: AttemptNumber, event: AttemptEvent) -> bool:
    """End an attempt that surely holds no payment, and free its idempotency key."""
    sources, target = ATTEMPT_MACHINE.sources(event), _target(ATTEMPT_MACHINE, event)
    async with shard.connection() as connection:
        ended = await connection.fetchval(MARK_ATTEMPT_PASSED_ON, number, sources, target)
    return ended is not None


async def mark_closed(connection: Connection, number: AttemptNumber) -> bool:
    """End an attempt that nobody can pay any more; False if it is not alive."""
    sources = ATTEMPT_MACHINE.sources(AttemptEvent.PROVIDER_CLOSED)
    return await connection.fetchval(MARK_ATTEMPT_CLOSED, number, sources) is not None


async def mark_captured(
    connection: Connection, number: AttemptNumber, event: AttemptEvent, snapshot: PaySnapshot
) -> bool:
    """Note that money came in by this attempt; False if it already had."""
    captured = await connection.fetchval(
        MARK_ATTEMPT_CAPTURED,
        number,
        _target(ATTEMPT_MACHINE, event),
        snapshot.provider_number,
        snapshot.amount_minor,
        ATTEMPT_MACHINE.sources(event),
    )
    return captured is not None


async def other_capture(
    connection: Connection, attempt: Attempt, provider_number: str
) -> AttemptNumber | None:
    """Return the attempt that already has this payment of the provider, if any."""
    number = await connection.fetchval(
        SELECT_OTHER_CAPTURE, attempt.provider, attempt.account, provider_number, attempt.number
    )
    return None if number is None else AttemptNumber(number)


async def claim_attempts(shard: Shard, attempts_max: int, claim_ms: int) -> list[DueAttempt]:
    """
    Take attempts that are due for a question, so that no other worker asks too.

    A worker that dies leaves them to others after `claim_ms`.
    """
    async with shard.connection() as connection:
        rows = await connection.fetch(CLAIM_ATTEMPTS, attempts_max, claim_ms)
    return [DueAttempt(attempt_from_row(row), OrderState(row["order_state"])) for row in rows]


async def postpone_query(shard: Shard, number: AttemptNumber, until: datetime) -> None:
    """Ask about a live attempt again at `until`."""
    async with shard.connection() as connection:
        await connection.execute(POSTPONE_QUERY, number, until)


async def recorded_event(
    connection: Connection, provider: str, account: str, notification_id: str
) -> tuple[str, str] | None:
    """Return (attempt number, outcome) of a message that was recorded before."""
    row = await connection.fetchrow(SELECT_PROVIDER_EVENT, provider, account, notification_id)
    return None if row is None else (row["attempt_number"], row["outcome"])


async def insert_event(
    connection: Connection, account: str, attempt_number: str, outcome: str, verified: Verified
) -> None:
    """Keep a verified message as it came, with what became of it."""
    event = verified.event
    await connection.execute(
        INSERT_PROVIDER_EVENT,
        event.provider,
        account,
        event.notification_id,
        attempt_number,
        "payment" if isinstance(event.about, PaySnapshot) else "refund",
        outcome,
        dict(verified.headers),
        verified.raw,
        event.event_at,
    )


async def insert_refund(connection: Connection, new: NewRefund) -> Refund:
    """Ask for money back, within what its attempt captured and once per number."""
    await connection.execute(
        INSERT_REFUND,
        new.number,
        new.attempt_number,
        *new.order_key,
        new.reason,
        new.late,
        new.amount_minor,
        new.currency,
        new.idempotency_key,
        new.fingerprint,
        new.note,
    )
    refund = await lock_refund(connection, new.number)
    assert refund is not None, new.number
    return refund


async def refunds_of_order(connection: Connection, key: OrderKey) -> list[Refund]:
    """Return every refund of one order, oldest first."""
    return [refund_from_row(row) for row in await connection.fetch(SELECT_REFUNDS, *key)]


async def find_refund_by_key(
    connection: Connection, key: OrderKey, idempotency_key: str
) -> Refund | None:
    """Return the refund of an order that was asked for under a key."""
    row = await connection.fetchrow(SELECT_REFUND_BY_KEY, *key, idempotency_key)
    return None if row is None else refund_from_row(row)


async def lock_refund(connection: Connection, number: str) -> Refund | None:
    """Read a refund FOR UPDATE."""
    row = await connection.fetchrow(SELECT_REFUND_FOR_UPDATE, number)
    return None if row is None else refund_from_row(row)


async def claim_refunds(shard: Shard, refunds_max: int, pauses_ms: Sequence[int]) -> list[Refund]:
    """Take refunds that are due, and set when each is due again."""
    async with shard.connection() as connection:
        rows = await connection.fetch(CLAIM_REFUNDS, refunds_max, list(pauses_ms))
    return [refund_from_row(row) for row in rows]


async def mark_refund(
    connection: Connection,
    number: RefundNumber,
    event: RefundEvent,
    provider_number: str | None = None,
) -> bool:
    """Move a refund by one event; False if its state does not allow that."""
    moved = await connection.fetchval(
        MARK_REFUND,
        number,
        _target(REFUND_MACHINE, event),
        provider_number,
        REFUND_MACHINE.sources(event),
    )
    return moved is not None


async def waiting_group_refunds(shard: Shard, rows_max: int) -> list[int]:
    """Return outbox rows that ask for a member's money back, oldest first."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_GROUP_REFUNDS, REFUND_MEMBER, rows_max)
    return [row["id"] for row in rows]


async def take_group_refund(connection: Connection, row_id: int) -> OrderKey | None:
    """Lock one such row and mark it done, in the caller's transaction; None if it is taken."""
    payload = await connection.fetchval(TAKE_GROUP_REFUND, row_id)
    return None if payload is None else OrderKey(**payload)


def _target(machine: Machine[State, Event], event: Event) -> State:
    """Return the one state that `event` leads to, from wherever."""
    (target,) = {state for (_, moved), state in machine.moves.items() if moved == event}
    return target


def attempt_from_row(row: Mapping[str, Any]) -> Attempt:
    """Turn a row of `payment_attempts` into an attempt."""
    return Attempt(
        number=AttemptNumber(row["number"]),
        order_key=OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"]),
        ordinal=row["ordinal"],
        idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        provider=row["provider"],
        account=row["account"],
        product=row["product"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        state=AttemptState(row["state"]),
        action=row["action"],
        provider_number=row["provider_number"],
        captured_minor=row["captured_minor"],
        refunded_minor=row["refunded_minor"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        queries=row["queries"],
    )


def refund_from_row(row: Mapping[str, Any]) -> Refund:
    """Turn a row of `REFUND_COLUMNS` into a refund."""
    return Refund(
        number=RefundNumber(row["number"]),
        order_key=OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"]),
        attempt=AttemptReference(
            number=row["attempt_number"],
            provider_number=row["attempt_provider_number"],
            amount_minor=row["captured_minor"],
            currency=row["currency"],
            created_at=row["created_at"],
        ),
        provider=row["provider"],
        account=row["account"],
        merchant=row["merchant"],
        reason=RefundReason(row["reason"]),
        late=row["late"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        state=RefundState(row["state"]),
        tries=row["tries"],
        requested_at=row["requested_at"],
        fingerprint=row["fingerprint"],
        note=row["note"],
        by_hand=row["by_hand"],
        doubled=row["doubled"],
    )
