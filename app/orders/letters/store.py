"""
Dead letters in Postgres: what could not be done, kept with its reason.

An order's letter is final: its ticket was answered `rejected`, so it can be read
and dropped, never retried. Letters of facts (ledger, outbox, callback) name the
outbox row they came from and can be tried again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from app.storage.shards import Shard


class LetterKind(StrEnum):
    """What a dead letter holds."""

    ORDER = "order"
    OUTBOX = "outbox"
    CALLBACK = "callback"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are meant; None and empty mean every."""

    kind: LetterKind | None = None
    reason: str | None = None
    sale: int | None = None
    ids: tuple[int, ...] = ()


_MATCHES: Final = """dropped_at IS NULL
  AND ($1::letter_kind IS NULL OR kind = $1)
  AND ($2::text IS NULL OR reason = $2)
  AND ($3::int IS NULL OR sale = $3)
  AND (cardinality($4::bigint[]) = 0 OR id = ANY($4))"""

SELECT_LETTERS: Final = f"""
SELECT id, kind, reason, sale, bucket, epoch, seq, units, detail, parked_at FROM dead_letters
WHERE {_MATCHES} AND id > $5 ORDER BY id LIMIT $6"""
COUNT_MATCHES: Final = f"SELECT count(*) FROM dead_letters WHERE {_MATCHES}"
DROP_LETTERS: Final = f"""
WITH dropped AS (
    UPDATE dead_letters SET dropped_at = now(), dropped_by = $5, dropped_why = $6
    WHERE {_MATCHES} RETURNING id
), noted AS (
    INSERT INTO audit_rows (actor, act, subject, reason, detail)
    SELECT $5, 'dead letters dropped', 'dead_letters', $6, jsonb_build_object('ids', jsonb_agg(id))
    FROM dropped HAVING count(*) > 0
)
SELECT count(*) FROM dropped"""
# Only letters that name their outbox row; the row becomes work again.
RETRY_LETTERS: Final = f"""
WITH retried AS (
    UPDATE dead_letters SET dropped_at = now(), dropped_by = $5, dropped_why = 'retried: ' || $6
    WHERE {_MATCHES} AND kind <> 'order' AND detail ? 'outbox_id'
    RETURNING id, (detail ->> 'outbox_id')::bigint AS outbox_id
), reopened AS (
    UPDATE outbox SET done_at = NULL, next_try_at = now(), last_error = NULL
    FROM retried WHERE outbox.id = retried.outbox_id
), noted AS (
    INSERT INTO audit_rows (actor, act, subject, reason, detail)
    SELECT $5, 'dead letters retried', 'dead_letters', $6, jsonb_build_object('ids', jsonb_agg(id))
    FROM retried HAVING count(*) > 0
)
SELECT count(*) FROM retried"""
COUNT_RETRYABLE: Final = f"""
SELECT count(*) FROM dead_letters
WHERE {_MATCHES} AND kind <> 'order' AND detail ? 'outbox_id'"""


async def list_letters(
    shard: Shard, wanted: LetterFilter, after: int, letters_max: int
) -> list[Mapping[str, Any]]:
    """Return waiting letters of one shard, oldest first, with ids above `after`."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_LETTERS, *_values(wanted), after, letters_max)
    return [dict(row) for row in rows]


async def drop_letters(
    shard: Shard, wanted: LetterFilter, *, actor: str, reason: str, dry_run: bool
) -> int:
    """Take letters off the list for good; they stay in the table, with who and why."""
    return await _change(shard, wanted, (COUNT_MATCHES, DROP_LETTERS), actor, reason, dry_run)


async def retry_letters(
    shard: Shard, wanted: LetterFilter, *, actor: str, reason: str, dry_run: bool
) -> int:
    """Make the facts behind letters work again; letters of orders are left alone."""
    return await _change(shard, wanted, (COUNT_RETRYABLE, RETRY_LETTERS), actor, reason, dry_run)


async def _change(  # noqa: PLR0913, PLR0917  one act in two forms
    shard: Shard,
    wanted: LetterFilter,
    statements: Sequence[str],
    actor: str,
    reason: str,
    dry_run: bool,  # noqa: FBT001  handed on
) -> int:
    count, change = statements
    async with shard.transaction() as connection:
        if dry_run:
            return int(await connection.fetchval(count, *_values(wanted)))
        return int(await connection.fetchval(change, *_values(wanted), actor, reason))


def _values(wanted: LetterFilter) -> tuple[object, ...]:
    return (wanted.kind, wanted.reason, wanted.sale, list(wanted.ids))
