"""What the risk rules keep in Postgres; subjects by their pseudonyms alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.kernel.ids import OrderKey
from app.payments.risk.rules import BlockEffect, HoldState, RiskSubject
from app.storage.shards import Connection

# Two starts of one subject are counted one after the other; the lock ends with the
# transaction. A lock of a row would need a row before there is one.
LOCK_SUBJECT: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 5))"
# As many old rows go as new ones come, and a few more, so no sweep is needed.
DELETE_OLD_STARTS: Final = """
DELETE FROM risk_starts WHERE (kind, pseudonym, start) IN (
    SELECT kind, pseudonym, start FROM risk_starts WHERE started_at <= $1
    ORDER BY started_at LIMIT 4 FOR UPDATE SKIP LOCKED)"""
COUNT_OTHER_STARTS: Final = """
SELECT count(*) FILTER (WHERE start <> $3) AS others, bool_or(start = $3) AS is_known
FROM risk_starts WHERE kind = $1 AND pseudonym = $2 AND started_at > $4"""
INSERT_START: Final = """
INSERT INTO risk_starts (kind, pseudonym, start, started_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, pseudonym, start) DO UPDATE SET started_at = excluded.started_at"""
SELECT_HOLD_STATE: Final = """
SELECT state FROM risk_holds WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4)"""
SELECT_BLOCK_EFFECTS: Final = """
SELECT kind, effect FROM risk_blocks
WHERE (kind, pseudonym) IN (SELECT * FROM unnest($1::risk_subject[], $2::bytea[]))"""
INSERT_HOLD: Final = """
INSERT INTO risk_holds (sale, bucket, epoch, seq, state, rule, held_at)
VALUES ($1, $2, $3, $4, 'held', $5, $6) ON CONFLICT DO NOTHING"""
NOTE_REFUSAL: Final = """
INSERT INTO risk_refusals (sale, bucket, epoch, seq, rule, first_at, last_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT (sale, bucket, epoch, seq, rule)
DO UPDATE SET tries = risk_refusals.tries + 1, last_at = excluded.last_at"""
DECIDE_HOLD: Final = """
UPDATE risk_holds SET state = $5, decided_by = $6, decided_why = $7, decided_at = $8
WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4) AND state = 'held' RETURNING state"""
SELECT_HOLD: Final = """
SELECT * FROM risk_holds WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4)"""
SELECT_REFUSALS: Final = """
SELECT rule, tries, first_at, last_at FROM risk_refusals
WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4) ORDER BY first_at, rule"""
SELECT_WAITING_HOLDS: Final = """
SELECT h.*, o.shopper FROM risk_holds h JOIN orders o USING (sale, bucket, epoch, seq)
WHERE h.state = 'held' ORDER BY h.held_at LIMIT $1"""
UPSERT_BLOCK: Final = """
INSERT INTO risk_blocks (kind, pseudonym, effect, reason, blocked_by, blocked_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (kind, pseudonym) DO UPDATE SET effect = excluded.effect, reason = excluded.reason,
    blocked_by = excluded.blocked_by, blocked_at = excluded.blocked_at"""
DELETE_BLOCK: Final = "DELETE FROM risk_blocks WHERE kind = $1 AND pseudonym = $2 RETURNING 1"
SELECT_BLOCKS: Final = """
SELECT kind, pseudonym, effect, reason, blocked_by, blocked_at FROM risk_blocks
ORDER BY blocked_at DESC, kind, pseudonym LIMIT $1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One row of the block list."""

    kind: RiskSubject
    pseudonym: bytes
    effect: BlockEffect
    reason: str
    blocked_by: str
    blocked_at: datetime


async def count_start(
    connection: Connection,
    subject: tuple[RiskSubject, bytes],
    start: bytes,
    starts_max: int,
    times: tuple[datetime, datetime],
) -> bool:
    """
    Count a start of one subject, unless it would be one too many; call in a transaction.

    Args:
        connection: to the shard that the pseudonym falls to.
        subject: its kind and pseudonym.
        start: names the start; one that was counted is not counted again.
        starts_max: within the window.
        times: since when starts count, and now.

    Returns:
        Whether it is within the limit.
    """
    kind, pseudonym = subject
    since, now = times
    await connection.execute(LOCK_SUBJECT, f"{kind}\n{pseudonym.hex()}")
    row = await connection.fetchrow(COUNT_OTHER_STARTS, kind, pseudonym, start, since)
    assert row is not None, "an aggregate always has a row"
    if row["is_known"]:
        return True
    if row["others"] >= starts_max:
        return False
    await connection.execute(INSERT_START, kind, pseudonym, start, now)
    await connection.execute(DELETE_OLD_STARTS, since)
    return True


async def read_hold_state(connection: Connection, key: OrderKey) -> HoldState | None:
    state = await connection.fetchval(SELECT_HOLD_STATE, *key)
    return None if state is None else HoldState(state)


async def read_block_effects(
    connection: Connection, subjects: Mapping[RiskSubject, bytes]
) -> dict[RiskSubject, BlockEffect]:
    kinds, pseudonyms = list(subjects), list(subjects.values())
    rows = await connection.fetch(SELECT_BLOCK_EFFECTS, kinds, pseudonyms)
    return {RiskSubject(row["kind"]): BlockEffect(row["effect"]) for row in rows}


async def note_hold(connection: Connection, key: OrderKey, rule: str, now: datetime) -> None:
    """Hold an order's payment; an earlier hold keeps its reason."""
    await connection.execute(INSERT_HOLD, *key, rule, now)


async def note_refusal(connection: Connection, key: OrderKey, rule: str, now: datetime) -> None:
    """Note that a rule refused an order's payment, once more."""
    await connection.execute(NOTE_REFUSAL, *key, rule, now)


async def decide_hold(
    connection: Connection,
    key: OrderKey,
    state: HoldState,
    decided: tuple[str, str, datetime],
) -> bool:
    """End a hold by whom, why and when; False when it is decided or there is none."""
    return await connection.fetchval(DECIDE_HOLD, *key, state, *decided) is not None


async def read_risk(
    connection: Connection, key: OrderKey
) -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    """Return an order's hold, if any, and its refusals, oldest first."""
    hold = await connection.fetchrow(SELECT_HOLD, *key)
    return hold, await connection.fetch(SELECT_REFUSALS, *key)


async def waiting_holds(connection: Connection, holds_max: int) -> Sequence[Mapping[str, Any]]:
    """Return the holds that nobody has decided, oldest first, with their shoppers."""
    return await connection.fetch(SELECT_WAITING_HOLDS, holds_max)


async def put_block(connection: Connection, block: Block) -> None:
    """Write a block, in the place of an earlier one of its subject."""
    await connection.execute(
        UPSERT_BLOCK,
        block.kind,
        block.pseudonym,
        block.effect,
        block.reason,
        block.blocked_by,
        block.blocked_at,
    )


async def delete_block(connection: Connection, kind: RiskSubject, pseudonym: bytes) -> bool:
    return await connection.fetchval(DELETE_BLOCK, kind, pseudonym) is not None


async def list_blocks(connection: Connection, blocks_max: int) -> list[Block]:
    """Return the newest blocks."""
    rows = await connection.fetch(SELECT_BLOCKS, blocks_max)
    return [
        Block(
            kind=RiskSubject(row["kind"]),
            pseudonym=row["pseudonym"],
            effect=BlockEffect(row["effect"]),
            reason=row["reason"],
            blocked_by=row["blocked_by"],
            blocked_at=row["blocked_at"],
        )
        for row in rows
    ]
