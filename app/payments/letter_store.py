"""
Callback letters in Postgres: verified messages that could not be applied.

The message lies in the outbox, done, so that each notification is kept once and an operator's
retry of its letter makes it work again, as with every other letter that names its outbox row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.storage.shards import Connection, Shard

KEEP_CALLBACK: Final = """
WITH kept AS (
    INSERT INTO outbox (kind, business_id, payload, done_at) VALUES ('callback', $1, $2, now())
    ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO dead_letters (kind, reason, raw, detail)
SELECT 'callback', $3, $4, $5::jsonb || jsonb_build_object('outbox_id', id) FROM kept"""
TAKE_CALLBACK: Final = """
SELECT id, payload, attempts FROM outbox
WHERE done_at IS NULL AND kind = 'callback' AND next_try_at <= now()
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"""
MARK_CALLBACK_DONE: Final = """
UPDATE outbox SET done_at = now(), attempts = attempts + 1 WHERE id = $1"""
KEEP_AGAIN: Final = """
INSERT INTO dead_letters (kind, reason, raw, detail)
VALUES ('callback', $2, $3, $4::jsonb || jsonb_build_object('outbox_id', $1::bigint))"""


@dataclass(frozen=True, slots=True)
class CallbackRow:
    """A kept message that an operator wants to be applied again."""

    id: int
    payload: Mapping[str, Any]
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackLetter:
    """What is written of one message: for people, and to apply it again."""

    reason: str
    raw: bytes
    detail: Mapping[str, object]


async def keep_callback(
    shard: Shard, business_id: str, payload: Mapping[str, object], letter: CallbackLetter
) -> None:
    """Keep a message and its letter, once for each notification, dropped or not."""
    async with shard.connection() as connection:
        await connection.execute(
            KEEP_CALLBACK,
            business_id,
            dict(payload),
            letter.reason,
            letter.raw,
            dict(letter.detail),
        )


async def take_callback(connection: Connection) -> CallbackRow | None:
    """Lock the oldest message to be applied again, until the transaction ends."""
    row = await connection.fetchrow(TAKE_CALLBACK)
    return None if row is None else CallbackRow(*row)


async def mark_callback_done(
    connection: Connection, row: CallbackRow, letter: CallbackLetter | None
) -> None:
    """Cross a message off; with a new letter if it could not be applied this time either."""
    await connection.execute(MARK_CALLBACK_DONE, row.id)
    if letter is not None:
        await connection.execute(KEEP_AGAIN, row.id, letter.reason, letter.raw, dict(letter.detail))
