"""
What the audit reads of orders, stock and leases in Postgres.

Every statement is read-only and takes a whole shard at once, so that an audit of
a million orders is a handful of scans and never a walk. A rule finds single
cases that must not be, with the first few of them as counter-examples; the other
statements count both sides of an equation.

`$1` is everywhere the numbers of the sales to judge, or NULL for all.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from app.kernel.equation import EXAMPLES_MAX
from app.orders.order import ORDER_MACHINE, PLACED_EVENT, OrderEvent, OrderReason
from app.storage.shards import Connection, Database, Shard, Shards

Row: TypeAlias = Mapping[str, Any]
Sales: TypeAlias = list[int] | None

# An audit scans; it may take far longer than any statement of the service.
STATEMENT_SECONDS_MAX: Final = 120.0

SELECT_SALE_NUMBER: Final = "SELECT sale FROM sale_directory WHERE id = $1"

# Home shard: what was given out, and what came back (docs/HOT_PATH.md §1).
SELECT_STOCK: Final = """
SELECT s.sale, s.id, s.stock_total, s.pool,
       coalesce(g.units, 0)::bigint AS issued, coalesce(c.units, 0)::bigint AS credited
FROM sales s
LEFT JOIN (SELECT sale, sum(units) AS units FROM grants GROUP BY sale) g USING (sale)
LEFT JOIN (SELECT sale, sum(units) AS units FROM pool_credits GROUP BY sale) c USING (sale)
WHERE $1::int[] IS NULL OR s.sale = ANY ($1)
ORDER BY s.sale"""

SELECT_CREDITS: Final = """
SELECT sale, bucket, source, source_id, units FROM pool_credits
WHERE $1::int[] IS NULL OR sale = ANY ($1)"""

SELECT_APPLIED_GRANTS: Final = """
SELECT sale, bucket, grant_id, units FROM applied_grants
WHERE $1::int[] IS NULL OR sale = ANY ($1)"""

# Applied, but never given out with these units.
FIND_UNISSUED_GRANTS: Final = """
SELECT a.sale, format('grant %s of %s units', a.id, a.units) AS example
FROM unnest($1::int[], $2::smallint[], $3::bigint[], $4::bigint[]) AS a (sale, bucket, id, units)
LEFT JOIN grants g USING (sale, bucket, id, units)
WHERE g.id IS NULL"""

# Credited, but never debited (or refused) with these units.
FIND_UNDEBITED_CREDITS: Final = """
SELECT c.sale, format('credit of %s units for %s %s', c.units, c.source, c.id) AS example
FROM unnest($1::int[], $2::smallint[], $3::text[], $4::bigint[], $5::bigint[])
  AS c (sale, bucket, source, id, units)
LEFT JOIN bucket_moves m ON c.source = 'move' AND m.state IN ('debited', 'credited')
     AND (m.sale, m.bucket, m.id, m.units) = (c.sale, c.bucket, c.id, c.units)
LEFT JOIN applied_grants a ON c.source = 'grant' AND a.refused
     AND (a.sale, a.bucket, a.grant_id, a.units) = (c.sale, c.bucket, c.id, c.units)
WHERE m.id IS NULL AND a.grant_id IS NULL"""

# One row per bucket that has a lease, orders, or only the one of them that it
# must not have without the other.
SELECT_BUCKETS: Final = """
WITH counted AS (
    SELECT sale, bucket, count(*) AS orders, sum(units_held)::bigint AS held
    FROM orders WHERE $1::int[] IS NULL OR sale = ANY ($1) GROUP BY sale, bucket
), applied AS (
    SELECT sale, bucket, sum(units)::bigint AS units
    FROM applied_grants WHERE NOT refused GROUP BY sale, bucket
), debited AS (
    SELECT sale, bucket, sum(units)::bigint AS units
    FROM bucket_moves WHERE state IN ('debited', 'credited') GROUP BY sale, bucket
), leases AS (
    SELECT * FROM bucket_leases WHERE $1::int[] IS NULL OR sale = ANY ($1)
)
SELECT sale, bucket, l.sale_id, l.epoch, l.state::text AS state,
       coalesce(l.granted, 0) AS granted, coalesce(l.reserved, 0) AS reserved,
       coalesce(l.orders_seen, 0) AS orders_seen,
       coalesce(c.orders, 0) AS orders, coalesce(c.held, 0) AS held,
       coalesce(a.units, 0) AS applied, coalesce(d.units, 0) AS debited,
       (SELECT count(*) FROM orders o
        WHERE (o.sale, o.bucket, o.epoch) = (l.sale, l.bucket, l.epoch)) AS rows_of_epoch,
       (SELECT count(*) FROM dead_letters t WHERE t.kind = 'order'
        AND (t.sale, t.bucket, t.epoch) = (l.sale, l.bucket, l.epoch)) AS letters_of_epoch
FROM leases l FULL JOIN counted c USING (sale, bucket)
LEFT JOIN applied a USING (sale, bucket) LEFT JOIN debited d USING (sale, bucket)
ORDER BY sale, bucket"""

FIND_LOST_TICKETS: Final = """
SELECT format('order %s/%s/%s/%s', $1::int, $2::smallint, $3::smallint, g.place) AS example
FROM generate_series(0, $4::bigint - 1) AS g (place)
WHERE NOT EXISTS (SELECT FROM orders o
                  WHERE (o.sale, o.bucket, o.epoch, o.seq) = ($1, $2, $3, g.place))
  AND NOT EXISTS (SELECT FROM dead_letters t WHERE t.kind = 'order'
                  AND (t.sale, t.bucket, t.epoch, t.seq) = ($1, $2, $3, g.place))
LIMIT $5"""

SELECT_UNITS: Final = f"""
SELECT o.sale, sum(o.units_held)::bigint AS held,
       coalesce(sum(o.quantity) FILTER (WHERE o.state IN ('shipped', 'completed')), 0)::bigint
           AS shipped,
       coalesce(sum(o.quantity) FILTER (WHERE e.seq IS NOT NULL AND o.units_held > 0), 0)::bigint
           AS paid
FROM orders o
LEFT JOIN order_events e ON e.event = '{OrderEvent.PAYMENT_CAPTURED}'
     AND (e.sale, e.bucket, e.epoch, e.seq) = (o.sale, o.bucket, o.epoch, o.seq)
WHERE $1::int[] IS NULL OR o.sale = ANY ($1)
GROUP BY o.sale"""

# What I3 and I17 compare with Redis: the lease row, what its epoch parked, and
# the moves that Redis may or may not have seen. One statement, one instant.
SELECT_STANDINGS: Final = """
SELECT l.sale, l.bucket, l.sale_id, l.epoch, l.state::text AS state, l.granted, l.reserved,
       l.stream_ms, l.stream_seq, l.orders_seen, l.units_flushed, l.units_released,
       coalesce(t.units, 0)::bigint AS parked_units,
       coalesce(m.ids, '{}') AS move_ids, coalesce(m.kinds, '{}') AS move_kinds,
       coalesce(m.units, '{}') AS move_units
FROM bucket_leases l
LEFT JOIN LATERAL (
    SELECT sum(units) AS units FROM dead_letters
    WHERE kind = 'order' AND (sale, bucket, epoch) = (l.sale, l.bucket, l.epoch)) t ON true
LEFT JOIN LATERAL (
    SELECT array_agg(id ORDER BY id) AS ids, array_agg(kind::text ORDER BY id) AS kinds,
           array_agg(units ORDER BY id) AS units
    FROM bucket_moves
    WHERE state = 'asked' AND (sale, bucket, epoch) = (l.sale, l.bucket, l.epoch)) m ON true
WHERE ($1::int[] IS NULL OR l.sale = ANY ($1)) AND (NOT $2 OR l.state <> 'closed')
ORDER BY l.sale, l.bucket"""

# `+ 0`: on a table that nobody has analysed yet, as in the first minute of a rush, the planner
# takes (sale, bucket) for as selective as (sale, shopper), and would read the whole bucket for
# each chunk.
SELECT_HELD: Final = """
SELECT shopper, sum(units_held)::bigint AS units FROM orders
WHERE sale = $1 AND bucket + 0 = $2 AND units_held > 0 AND shopper = ANY ($3::text[])
GROUP BY shopper"""

COUNT_HOLDERS: Final = """
SELECT count(DISTINCT shopper) FROM orders WHERE sale = $1 AND bucket = $2 AND units_held > 0"""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """
    Single cases that must not be.

    `statement` yields sale and example for each case; its parameters after `$1`
    are `arguments`.
    """

    invariant: str
    what: str
    statement: str
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Breaks:
    """How often a rule is broken in one sale, with a few of the cases."""

    count: int
    examples: tuple[str, ...]


NO_BREAKS: Final = Breaks(0, ())

_CASES: Final = f"""
SELECT sale, count(*) AS broken, (array_agg(example ORDER BY example))[1:{EXAMPLES_MAX}] AS examples
FROM ({{cases}}) AS cases GROUP BY sale"""

_ORDER: Final = "format('order %s/%s/%s/%s', o.sale, o.bucket, o.epoch, o.seq)"
_HERE: Final = "($1::int[] IS NULL OR o.sale = ANY ($1))"
_SAME_ORDER: Final = "(o.sale, o.bucket, o.epoch, o.seq)"

# What order_events may tell: state before, event, state after.
_MOVES: Final = [
    ("", PLACED_EVENT, str(ORDER_MACHINE.start)),
    *((str(old), str(event), str(new)) for (old, event), new in ORDER_MACHINE.moves.items()),
]

_ENDED_BEFORE_ITS_TIME: Final = (str(OrderReason.EXPIRED), str(OrderReason.PAYMENT_FAILED))

ORDER_RULES: Final = (
    Rule(
        "I4",
        "orders shipped without having been paid",
        f"""
        SELECT o.sale, {_ORDER} AS example FROM orders o
        WHERE o.state IN ('shipped', 'completed') AND {_HERE} AND NOT EXISTS (
            SELECT FROM order_events e
            WHERE e.state = 'paid' AND (e.sale, e.bucket, e.epoch, e.seq) = {_SAME_ORDER})""",
    ),
    Rule(
        "I5",
        "tickets that ended both confirmed and rejected",
        f"""
        SELECT o.sale, {_ORDER} || ' is also letter ' || t.id AS example
        FROM dead_letters t JOIN orders o
          ON (t.sale, t.bucket, t.epoch, t.seq) = {_SAME_ORDER}
        WHERE t.kind = 'order' AND {_HERE}""",
    ),
    Rule(
        "I5",
        "orders that the flush has not come to",
        f"""
        SELECT o.sale, {_ORDER} AS example
        FROM bucket_leases l JOIN orders o
          ON (l.sale, l.bucket, l.epoch) = (o.sale, o.bucket, o.epoch) AND o.seq >= l.orders_seen
        WHERE l.state <> 'closed' AND {_HERE}""",
    ),
    Rule(
        "I9",
        "shoppers who hold more than the limit",
        """
        SELECT o.sale,
               format('shopper %s holds %s, limit %s', o.shopper, o.held, l.units) AS example
        FROM (SELECT sale, shopper, sum(units_held) AS held FROM orders
              WHERE units_held > 0 AND ($1::int[] IS NULL OR sale = ANY ($1))
              GROUP BY sale, shopper) o
        JOIN (SELECT sale, min(limit_per_shopper) AS units FROM bucket_leases GROUP BY sale) l
          ON l.sale = o.sale
        WHERE o.held > l.units""",
    ),
    Rule(
        "I10",
        "orders placed outside the window",
        f"""
        SELECT o.sale, {_ORDER} || ' placed at ' || o.placed_at AS example
        FROM orders o JOIN bucket_leases l USING (sale, bucket)
        WHERE {_HERE} AND (o.placed_at < date_trunc('milliseconds', l.opens_at)
                           OR o.placed_at >= l.closes_at)""",
    ),
    Rule(
        "I11",
        "events that the state table does not allow",
        f"""
        SELECT o.sale, {_ORDER} || format(' event %s: %s --%s-> %s', o.number,
               coalesce(nullif(o.before, ''), 'nothing'), o.event, o.state) AS example
        FROM (SELECT sale, bucket, epoch, seq, number, event, state::text AS state,
                     coalesce(lag(state::text) OVER life, '') AS before,
                     row_number() OVER life AS place
              FROM order_events WHERE $1::int[] IS NULL OR sale = ANY ($1)
              WINDOW life AS (PARTITION BY sale, bucket, epoch, seq ORDER BY number)) o
        LEFT JOIN unnest($2::text[], $3::text[], $4::text[]) AS move (before, event, state)
          USING (before, event, state)
        WHERE move.event IS NULL OR o.number <> o.place""",
        tuple(zip(*_MOVES, strict=True)),
    ),
    Rule(
        "I11",
        "orders whose state is not that of their last event",
        f"""
        SELECT o.sale, {_ORDER} || format(' is %s, its last event says %s', o.state,
               coalesce(e.state::text, 'nothing')) AS example
        FROM orders o LEFT JOIN order_events e
          ON (e.sale, e.bucket, e.epoch, e.seq) = {_SAME_ORDER} AND e.number >= o.last_event
        WHERE {_HERE} AND (
            e.state IS DISTINCT FROM o.state OR e.number IS DISTINCT FROM o.last_event)""",
    ),
    Rule(
        "I11",
        "orders that were paid and are closed",
        f"""
        SELECT o.sale, {_ORDER} AS example FROM orders o
        WHERE o.state = 'closed' AND {_HERE} AND EXISTS (
            SELECT FROM order_events e
            WHERE e.state = 'paid' AND (e.sale, e.bucket, e.epoch, e.seq) = {_SAME_ORDER})""",
    ),
    Rule(
        "I11",
        "orders closed before their deadline, not cancelled",
        f"""
        SELECT o.sale, {_ORDER} || ' closed at ' || o.closed_at AS example FROM orders o
        WHERE o.state = 'closed' AND o.closed_at < o.pay_by
          AND o.reason::text = ANY ($2::text[]) AND {_HERE}""",
        (_ENDED_BEFORE_ITS_TIME,),
    ),
    Rule(
        "I18",
        "orders of an epoch that is over or has not begun",
        # Only an open lease row has the instant at which its own epoch opened. The lock
        # timeout is 3 s: so long may the opening have waited for the last flush before.
        f"""
        SELECT o.sale, {_ORDER} || format(' recorded at %s, lease at epoch %s, %s', o.recorded_at,
               l.epoch, l.state) AS example
        FROM orders o JOIN bucket_leases l USING (sale, bucket)
        WHERE {_HERE} AND (
            o.epoch > l.epoch OR (o.epoch = l.epoch AND l.state = 'closed')
            OR (o.epoch < l.epoch AND l.state = 'open'
                AND o.recorded_at > l.epoch_opened_at + interval '3 seconds'))""",
    ),
    Rule(
        "I19",
        "orders that let go of their units without one return of as many",
        f"""
        SELECT o.sale, {_ORDER} AS example
        FROM orders o LEFT JOIN bucket_moves m
          ON (m.sale, m.bucket, m.order_epoch, m.order_seq) = {_SAME_ORDER} AND m.kind = 'return'
        WHERE o.units_held = 0 AND {_HERE} AND m.units IS DISTINCT FROM o.quantity""",
    ),
    Rule(
        "I19",
        "returns of units that no closed order or letter let go",
        """
        SELECT m.sale, format('move %s of %s units', m.id, m.units) AS example
        FROM bucket_moves m
        LEFT JOIN orders o ON o.units_held = 0
         AND (o.sale, o.bucket, o.epoch, o.seq) = (m.sale, m.bucket, m.order_epoch, m.order_seq)
        LEFT JOIN dead_letters t ON t.kind = 'order' AND t.units = m.units
         AND (t.sale, t.bucket, t.epoch, t.seq) = (m.sale, m.bucket, m.order_epoch, m.order_seq)
        WHERE m.kind = 'return' AND ($1::int[] IS NULL OR m.sale = ANY ($1))
          AND o.seq IS NULL AND t.id IS NULL""",
    ),
)

SELECT_RETURNS: Final = """
SELECT sale, sum(returned)::bigint AS returned, sum(let_go)::bigint AS let_go
FROM (
    SELECT sale, 0 AS returned, quantity AS let_go FROM orders WHERE units_held = 0
    UNION ALL
    SELECT sale, units, 0 FROM bucket_moves WHERE kind = 'return' AND key_hash IS NULL
) AS units
WHERE $1::int[] IS NULL OR sale = ANY ($1)
GROUP BY sale"""


@contextlib.asynccontextmanager
async def snapshot(database: Database) -> AsyncGenerator[Connection]:
    """
    Lend a connection that sees one instant of the database and can change nothing.

    Raises:
        ShardUnavailable, LedgerUnavailable: the database does not answer.
    """
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def fetch_all(connection: Connection, statement: str, *arguments: object) -> list[Row]:
    """Run one long read."""
    rows = await connection.fetch(statement, *arguments, timeout=STATEMENT_SECONDS_MAX)
    return [dict(row) for row in rows]


async def find_sale(shards: Shards, sale: str) -> int | None:
    """Return the number of a sale's public id."""
    async with shards.directory.connection() as connection:
        number: int | None = await connection.fetchval(SELECT_SALE_NUMBER, sale)
    return number


async def find_breaks(shard: Shard, rule: Rule, sales: Sales) -> dict[int, Breaks]:
    """
    Return the sales in which a rule is broken.

    One statement, one instant; a snapshot for all rules together would keep the
    database from tidying up behind a sale for as long as the audit takes.
    """
    statement = _CASES.format(cases=rule.statement)
    async with snapshot(shard) as connection:
        rows = await fetch_all(connection, statement, sales, *rule.arguments)
    return {row["sale"]: Breaks(row["broken"], tuple(row["examples"])) for row in rows}


async def read_standings(shard: Shard, sales: Sales, *, live: bool) -> list[Row]:
    """Return the lease rows of a shard with what their epochs have under way."""
    async with shard.connection() as connection:
        return await fetch_all(connection, SELECT_STANDINGS, sales, live)


async def units_held_by(
    shard: Shard, sale: int, bucket: int, shoppers: Sequence[str]
) -> dict[str, int]:
    """Return shopper -> units held, of those who hold any."""
    async with shard.connection() as connection:
        rows = await fetch_all(connection, SELECT_HELD, sale, bucket, list(shoppers))
    return {row["shopper"]: row["units"] for row in rows}


async def count_holders(shard: Shard, sale: int, bucket: int) -> int:
    """Return how many shoppers hold units of a bucket."""
    async with shard.connection() as connection:
        (row,) = await fetch_all(connection, COUNT_HOLDERS, sale, bucket)
    return int(row["count"])


def columns(rows: Sequence[Row], *names: str) -> list[list[Any]]:
    """Turn rows into the arrays that `unnest` takes."""
    return [[row[name] for row in rows] for name in names]
