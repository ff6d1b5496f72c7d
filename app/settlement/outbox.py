"""Take facts from the outbox of a shard, mark them posted, or park them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.kernel.errors import DoorbusterError
from app.settlement.fact import FactKind
from app.storage.shards import Connection

TAKE_FACTS: Final = """
SELECT id, kind, business_id, payload, created_at FROM outbox
WHERE done_at IS NULL AND kind = ANY ($1::text[]) AND next_try_at <= now()
ORDER BY id
LIMIT $2
FOR UPDATE SKIP LOCKED"""

MARK_FACTS_POSTED: Final = """
UPDATE outbox SET done_at = now(), attempts = attempts + 1 WHERE id = ANY ($1::bigint[])"""

PARK_FACT: Final = """
WITH parked AS (
    UPDATE outbox SET done_at = now(), attempts = attempts + 1, last_error = $2
    WHERE id = $1
)
INSERT INTO dead_letters (kind, reason, raw, detail) VALUES ('ledger', $3, $4, $5)"""

LEDGER_KINDS: Final = tuple(str(kind) for kind in FactKind)
"""The outbox rows that settlement takes; all others belong to somebody else."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One fact as it lies in the outbox, not yet read."""

    id: int
    kind: str
    business_id: str
    payload: Mapping[str, object]
    created_at: datetime


async def take_facts(connection: Connection, facts_max: int) -> list[OutboxRow]:
    """
    Lock the oldest facts that nobody else holds, until the transaction ends.

    Never "id greater than the last seen": commits do not arrive in the order of
    ids, and one that came late would be passed over for ever.
    """
    rows = await connection.fetch(TAKE_FACTS, list(LEDGER_KINDS), facts_max)
    return [OutboxRow(*row) for row in rows]


async def mark_posted(connection: Connection, rows: Sequence[OutboxRow]) -> None:
    """Say that these facts are in the ledger."""
    await connection.execute(MARK_FACTS_POSTED, [row.id for row in rows])


async def park_fact(connection: Connection, row: OutboxRow, error: DoorbusterError) -> None:
    """Set a fact aside that can never be posted as it is; an operator decides."""
    detail = {"outbox_id": row.id, "fact": row.kind, "business_id": row.business_id}
    raw = json.dumps(row.payload).encode()
    await connection.execute(
        PARK_FACT, row.id, str(error), type(error).__name__, raw, detail | {"error": str(error)}
    )
