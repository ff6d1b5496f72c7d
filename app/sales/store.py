"""Sales in Postgres: the directory of names, and the row on a sale's home shard."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from app.kernel.errors import IdempotencyMismatch, ShardUnavailable
from app.sales.policy import PolicyTerms, Refundable, ReviewRule
from app.sales.sale import (
    ALREADY_DONE,
    SALE_MACHINE,
    GroupTerms,
    LeaderPolicy,
    Sale,
    SaleEvent,
    SaleKind,
    SaleState,
)
from app.sales.sale import SaleTerms as Terms
from app.storage.shards import Connection, Shard, Shards

_COLUMNS: Final = """sale, id, kind, title, sku, merchant, price_minor, currency, stock_total, pool,
    limit_per_shopper, opens_at, closes_at, pay_within_seconds, buckets, state, state_reason,
    published_at, closed_at, refundable, refund_window_seconds, review, review_from_minor,
    confirm_after_seconds, group_size, group_window_seconds, group_leader_leaves,
    group_rescue_seconds"""

INSERT_NAME: Final = """
INSERT INTO sale_directory (id, sale, home_shard, idempotency_key, fingerprint)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING sale"""
NEXT_NUMBER: Final = "SELECT nextval('sale_numbers')::int"
SELECT_BY_KEY: Final = """
SELECT id, sale, fingerprint FROM sale_directory WHERE idempotency_key = $1"""
SELECT_NUMBER: Final = "SELECT sale FROM sale_directory WHERE id = $1"
SELECT_NAMES: Final = """
SELECT id, sale FROM sale_directory WHERE sale < $1 ORDER BY sale DESC LIMIT $2"""

INSERT_SALE: Final = """
INSERT INTO sales (sale, id, kind, title, sku, merchant, price_minor, currency, stock_total, pool,
                   limit_per_shopper, opens_at, closes_at, pay_within_seconds, buckets,
                   refundable, refund_window_seconds, review, review_from_minor,
                   confirm_after_seconds, group_size, group_window_seconds, group_leader_leaves,
                   group_rescue_seconds, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20, $21, $22, $23, 'draft')
ON CONFLICT DO NOTHING"""
SELECT_SALES: Final = f"SELECT {_COLUMNS} FROM sales WHERE sale = ANY($1::int[]) ORDER BY sale"
SELECT_TO_LEASE: Final = f"""
SELECT {_COLUMNS} FROM sales
WHERE state <> 'draft' AND leased_at IS NULL AND published_at IS NOT NULL ORDER BY sale"""
MARK_LEASED: Final = "UPDATE sales SET leased_at = now() WHERE sale = $1 AND leased_at IS NULL"

CHANGE_STATE: Final = f"""
UPDATE sales
SET state = $2, state_reason = $3,
    published_at = CASE WHEN $2 = 'published'::sale_state
                        THEN coalesce(published_at, now()) ELSE published_at END,
    closed_at = CASE WHEN $2 = 'closed'::sale_state THEN now() ELSE closed_at END
WHERE sale = $1 AND state = ANY($4::sale_state[])
  AND ($2 <> 'published'::sale_state OR closes_at > now())
RETURNING {_COLUMNS}"""
ADD_STOCK: Final = f"""
UPDATE sales SET stock_total = stock_total + $2, pool = pool + $2
WHERE sale = $1 AND state IN ('published', 'paused') AND closes_at > now()
  AND stock_total + $2 <= 10000000
RETURNING {_COLUMNS}"""
SELECT_WRITE: Final = """
SELECT fingerprint, result FROM sale_writes WHERE sale = $1 AND idempotency_key = $2"""
INSERT_WRITE: Final = """
INSERT INTO sale_writes (sale, idempotency_key, fingerprint, result) VALUES ($1, $2, $3, $4)"""
LOCK_SALE: Final = "SELECT 1 FROM sales WHERE sale = $1 FOR UPDATE"
INSERT_AUDIT: Final = """
INSERT INTO audit_rows (actor, act, subject, reason, detail) VALUES ($1, $2, $3, $4, $5)"""


@dataclass(frozen=True, slots=True)
class Act:
    """Who wants a change, and why: what its audit row says."""

    actor: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of a sale: the row now, and whether this call made it so."""

    sale: Sale
    is_new: bool


async def create_sale(
    shards: Shards,
    terms: Terms,
    *,
    idempotency_key: str,
    fingerprint: bytes,
    act: Act,
) -> Changed | None:
    """
    Give a sale its number and write its row, as a draft.

    The name goes to the directory first and the row to the home shard then; a
    crash between the two is finished by the same key.

    Returns:
        None if another sale has the id.

    Raises:
        IdempotencyMismatch: the key made another sale before.
        ShardUnavailable: repeating with the same key is safe.
    """
    named = await _take_name(shards, terms.id, idempotency_key, fingerprint)
    if named is None:
        return None
    number, sale_id, is_new = named
    async with shards.home(number).transaction() as connection:
        status = await connection.execute(INSERT_SALE, number, sale_id, *_values(terms))
        if status == "INSERT 0 1":
            detail = {"stock": terms.stock, **asdict(terms.policy)}
            await note_act(connection, act, "sale created", sale_id, detail)
        sale = await _read(connection, number)
    return Changed(sale, is_new)


async def _take_name(
    shards: Shards,
    sale_id: str,
    idempotency_key: str,
    fingerprint: bytes,
) -> tuple[int, str, bool] | None:
    async with shards.directory.transaction() as connection:
        known = await connection.fetchrow(SELECT_BY_KEY, idempotency_key)
        if known is None:
            number = await connection.fetchval(NEXT_NUMBER)
            home = shards.home(number).index
            taken = await connection.fetchval(
                INSERT_NAME, sale_id, number, home, idempotency_key, fingerprint
            )
            if taken is not None:
                return number, sale_id, True
            # Lost a race: against the same key, or against the same name.
            known = await connection.fetchrow(SELECT_BY_KEY, idempotency_key)
    if known is None:
        return None
    if known["fingerprint"] != fingerprint:
        raise IdempotencyMismatch(key=idempotency_key)
    return known["sale"], known["id"], False


async def find_sale(shards: Shards, sale_id: str) -> Sale | None:
    """Return a sale by its id."""
    async with shards.directory.connection() as connection:
        number = await connection.fetchval(SELECT_NUMBER, sale_id)
    if number is None:
        return None
    found = await read_sales(shards.home(number), [number])
    return found[0] if found else None


async def read_sales(shard: Shard, numbers: Sequence[int]) -> list[Sale]:
    """Return the sales at home on this shard with these numbers, oldest first."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_SALES, list(numbers))
    return [_sale(row) for row in rows]


async def list_sales(shards: Shards, before: int | None, sales_max: int) -> list[Sale]:
    """Return sales newest first, with numbers below `before`."""
    async with shards.directory.connection() as connection:
        rows = await connection.fetch(SELECT_NAMES, before or 2**31 - 1, sales_max)
    by_home: dict[Shard, list[int]] = {}
    for row in rows:
        by_home.setdefault(shards.home(row["sale"]), []).append(row["sale"])
    found = [
        sale for shard, numbers in by_home.items() for sale in await read_sales(shard, numbers)
    ]
    return sorted(found, key=lambda sale: -sale.number)


async def change_state(shards: Shards, number: int, event: SaleEvent, act: Act) -> Changed | None:
    """
    Publish, pause, resume or close a sale; repeating it has no second effect.

    Returns:
        None if the sale's state (or, for publish, its window) does not allow it.
    """
    target = next(to for (_, moved), to in SALE_MACHINE.moves.items() if moved == event)
    async with shards.home(number).transaction() as connection:
        row = await connection.fetchrow(
            CHANGE_STATE, number, target, act.reason, SALE_MACHINE.sources(event)
        )
        if row is not None:
            sale = _sale(row)
            await note_act(connection, act, f"sale {event}", sale.id, {})
            return Changed(sale, is_new=True)
        sale = await _read(connection, number)
    return Changed(sale, is_new=False) if sale.state in ALREADY_DONE[event] else None


async def add_stock(
    shards: Shards,
    number: int,
    units: int,
    *,
    idempotency_key: str,
    act: Act,
) -> Changed | None:
    """
    Add units to a running sale's pool, once for each key.

    Returns:
        None if the sale is not running or would exceed ten million units.

    Raises:
        IdempotencyMismatch: the key added another number of units before.
    """
    fingerprint = units.to_bytes(8, "big")
    async with shards.home(number).transaction() as connection:
        await connection.execute(LOCK_SALE, number)
        known = await connection.fetchrow(SELECT_WRITE, number, idempotency_key)
        if known is not None:
            if known["fingerprint"] != fingerprint:
                raise IdempotencyMismatch(key=idempotency_key)
            return Changed(await _read(connection, number), is_new=False)
        row = await connection.fetchrow(ADD_STOCK, number, units)
        if row is None:
            return None
        sale = _sale(row)
        result = {"units": units, "stock_total": sale.stock_total}
        await connection.execute(INSERT_WRITE, number, idempotency_key, fingerprint, result)
        await note_act(connection, act, "sale restocked", sale.id, result)
    return Changed(sale, is_new=True)


async def sales_to_lease(shard: Shard) -> list[Sale]:
    """Return published sales at home here whose buckets have no lease rows yet."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_TO_LEASE)
    return [_sale(row) for row in rows]


async def mark_leased(shard: Shard, number: int) -> None:
    """Note that every bucket of a sale has its lease row."""
    async with shard.connection() as connection:
        await connection.execute(MARK_LEASED, number)


async def note_act(
    connection: Connection,
    act: Act,
    what: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    """Write the audit row of a change, in the change's transaction."""
    await connection.execute(INSERT_AUDIT, act.actor, what, subject, act.reason, dict(detail))


async def _read(connection: Connection, number: int) -> Sale:
    row = await connection.fetchrow(SELECT_SALES, [number])
    if row is None:
        raise ShardUnavailable(sale=number, why="the directory names it, its home shard lacks it")
    return _sale(row)


def _values(terms: Terms) -> tuple[object, ...]:
    """Return the terms in the order of INSERT_SALE, without number and id."""
    return (
        terms.kind,
        terms.title,
        terms.sku,
        terms.merchant,
        terms.price_minor,
        terms.currency,
        terms.stock,
        terms.limit_per_shopper,
        terms.opens_at,
        terms.closes_at,
        terms.pay_within_seconds,
        terms.buckets,
        *astuple(terms.policy),
        *group_values(terms.group),
    )


def group_values(group: GroupTerms | None) -> tuple[object, ...]:
    """Return the terms of groups as rows of sales and leases hold them; nulls for none."""
    if group is None:
        return (None, None, None, None)
    return (group.size, group.window_seconds, group.leader_leaves, group.rescue_seconds)


def pop_group_terms(values: dict[str, Any]) -> GroupTerms | None:
    """Take the terms of groups out of a row's values."""
    size = values.pop("group_size")
    window_seconds = values.pop("group_window_seconds")
    leader_leaves = values.pop("group_leader_leaves")
    rescue_seconds = values.pop("group_rescue_seconds")
    if size is None:
        return None
    return GroupTerms(
        size=size,
        window_seconds=window_seconds,
        leader_leaves=LeaderPolicy(leader_leaves),
        rescue_seconds=rescue_seconds,
    )


def _pop_policy(values: dict[str, Any]) -> PolicyTerms:
    return PolicyTerms(
        refundable=Refundable(values.pop("refundable")),
        refund_window_seconds=values.pop("refund_window_seconds"),
        review=ReviewRule(values.pop("review")),
        review_from_minor=values.pop("review_from_minor"),
        confirm_after_seconds=values.pop("confirm_after_seconds"),
    )


def _sale(row: Mapping[str, Any]) -> Sale:
    values = dict(row)
    return Sale(
        number=values.pop("sale"),
        kind=SaleKind(values.pop("kind")),
        state=SaleState(values.pop("state")),
        policy=_pop_policy(values),
        group=pop_group_terms(values),
        **values,
    )
