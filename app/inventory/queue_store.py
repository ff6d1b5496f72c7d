"""What Postgres knows of the queues: lease rows, who flushes them, dead letters."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from app.storage.shards import LockPurpose, Shard

Row: TypeAlias = Mapping[str, Any]

# The flusher of a bucket holds an advisory lock; who holds it is its owner.
# Both halves of a two-key lock are in classid and objid, and objsubid is 2.
SELECT_QUEUES: Final = """
SELECT l.sale, l.bucket, l.sale_id, l.epoch, l.state::text AS state, l.stream_ms, l.stream_seq,
       l.orders_seen, l.recover_reason, owner.name AS owner
FROM bucket_leases l
LEFT JOIN LATERAL (
    SELECT format('%s (backend %s)', a.application_name, a.pid) AS name
    FROM pg_locks k JOIN pg_stat_activity a USING (pid)
    WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 2
      AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.classid::bigint = $1 AND k.objid::bigint = (l.sale::bigint << 8 | l.bucket)
    LIMIT 1) owner ON true
WHERE l.state <> 'closed' AND l.epoch > 0
ORDER BY l.sale, l.bucket"""

COUNT_LETTERS: Final = """
SELECT kind::text AS kind, count(*) AS letters FROM dead_letters
WHERE dropped_at IS NULL GROUP BY kind"""


async def read_queues(shard: Shard) -> tuple[list[Row], dict[str, int]]:
    """Return the buckets that may have something to flush, and dead letters by kind."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_QUEUES, int(LockPurpose.FLUSH))
        letters = await connection.fetch(COUNT_LETTERS)
    return [dict(row) for row in rows], {row["kind"]: row["letters"] for row in letters}
