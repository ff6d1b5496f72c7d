"""
Sealed fields in Postgres: delivery details and invoice wishes.

Nothing here is ever in clear: what goes in and comes out is sealed, and the name of
the key that opens it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.fulfilment.invoice import InvoiceKind
from app.kernel.ids import OrderKey
from app.orders.order import Order
from app.orders.store import THIS_ORDER, read_orders
from app.storage.shards import Connection, Shard

_KEY: Final = "sale, bucket, epoch, seq"

PUT_DELIVERY: Final = f"""
INSERT INTO order_deliveries ({_KEY}, key_id, receiver, mobile, address, mobile_index)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT ON CONSTRAINT order_deliveries_key DO UPDATE
SET key_id = $5, receiver = $6, mobile = $7, address = $8, mobile_index = $9,
    changed_at = now()"""
SELECT_DELIVERY: Final = f"""
SELECT key_id, receiver, mobile, address, mobile_index FROM order_deliveries
WHERE {THIS_ORDER}"""
# The newest first: who searches by a phone number looks for a parcel on its way.
SELECT_KEYS_BY_MOBILE: Final = f"""
SELECT {_KEY} FROM order_deliveries
WHERE mobile_index = ANY($1::bytea[]) ORDER BY changed_at DESC LIMIT $2"""
SELECT_OLD_DELIVERIES: Final = f"""
SELECT {_KEY}, key_id, receiver, mobile, address, mobile_index FROM order_deliveries
WHERE key_id = ANY($1::text[]) LIMIT $2 FOR UPDATE SKIP LOCKED"""
RESEAL_DELIVERIES: Final = """
UPDATE order_deliveries d
SET key_id = $1, receiver = n.receiver, mobile = n.mobile, address = n.address,
    mobile_index = n.mobile_index
FROM unnest($2::int[], $3::smallint[], $4::smallint[], $5::bigint[],
            $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])
  AS n (sale, bucket, epoch, seq, receiver, mobile, address, mobile_index)
WHERE (d.sale, d.bucket, d.epoch, d.seq) = (n.sale, n.bucket, n.epoch, n.seq)"""

PUT_INVOICE: Final = f"""
INSERT INTO order_invoices ({_KEY}, kind, key_id, title, tax_number)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT ON CONSTRAINT order_invoices_key DO UPDATE
SET kind = $5, key_id = $6, title = $7, tax_number = $8, changed_at = now()"""
RESEAL_INVOICE: Final = f"""
UPDATE order_invoices SET key_id = $5, title = $6, tax_number = $7 WHERE {THIS_ORDER}"""
SELECT_INVOICE: Final = f"""
SELECT kind, key_id, title, tax_number FROM order_invoices WHERE {THIS_ORDER}"""
# The next name in the index, again and again: as many steps as there are keys, not rows.
_SELECT_KIDS: Final = """
WITH RECURSIVE kids AS (
    (SELECT key_id FROM {table} ORDER BY key_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.key_id FROM {table} t WHERE t.key_id > kids.key_id ORDER BY t.key_id LIMIT 1)
    FROM kids WHERE kids.key_id IS NOT NULL
)
SELECT key_id FROM kids WHERE key_id IS NOT NULL"""
SELECT_KIDS_OF_DELIVERIES: Final = _SELECT_KIDS.format(table="order_deliveries")
SELECT_KIDS_OF_INVOICES: Final = _SELECT_KIDS.format(table="order_invoices")
SELECT_OLD_INVOICES: Final = f"""
SELECT {_KEY}, kind, key_id, title, tax_number FROM order_invoices
WHERE key_id = ANY($1::text[]) LIMIT $2 FOR UPDATE SKIP LOCKED"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDelivery:
    """A row of order_deliveries; the fields are bytes of `fulfilment.seals`."""

    kid: str
    receiver: bytes
    mobile: bytes
    address: bytes
    mobile_index: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedInvoice:
    """A row of order_invoices, likewise."""

    kind: InvoiceKind
    kid: str
    title: bytes
    tax_number: bytes | None


async def put_delivery(connection: Connection, key: OrderKey, sealed: SealedDelivery) -> None:
    """Write or replace an order's delivery details; the caller holds the order's row."""
    await connection.execute(
        PUT_DELIVERY,
        *key,
        sealed.kid,
        sealed.receiver,
        sealed.mobile,
        sealed.address,
        sealed.mobile_index,
    )


async def read_delivery(connection: Connection, key: OrderKey) -> SealedDelivery | None:
    """Return an order's delivery details; None if it has none yet."""
    row = await connection.fetchrow(SELECT_DELIVERY, *key)
    return None if row is None else _delivery(row)


async def orders_by_mobile(shard: Shard, hashes: Sequence[bytes], orders_max: int) -> list[Order]:
    """Return the orders of one shard that go to a phone number, by its hashes."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_KEYS_BY_MOBILE, list(hashes), orders_max)
    keys = [OrderKey(*row) for row in rows]
    return list((await read_orders(shard, keys)).values()) if keys else []


async def old_deliveries(
    connection: Connection, kids: Sequence[str], rows_max: int
) -> list[tuple[OrderKey, SealedDelivery]]:
    """Lock rows that are sealed under one of these keys."""
    rows = await connection.fetch(SELECT_OLD_DELIVERIES, list(kids), rows_max)
    return [(_key(row), _delivery(row)) for row in rows]


async def reseal_deliveries(
    connection: Connection, rows: Sequence[tuple[OrderKey, SealedDelivery]]
) -> None:
    """Replace what locked rows hold by the same, sealed under one other key."""
    keys = [list(column) for column in zip(*(key for key, _ in rows), strict=True)]
    sealed = [one for _, one in rows]
    await connection.execute(
        RESEAL_DELIVERIES,
        sealed[0].kid,
        *keys,
        [one.receiver for one in sealed],
        [one.mobile for one in sealed],
        [one.address for one in sealed],
        [one.mobile_index for one in sealed],
    )


async def put_invoice(connection: Connection, key: OrderKey, sealed: SealedInvoice) -> None:
    """Write or replace what an order's shopper wants on the invoice."""
    await connection.execute(
        PUT_INVOICE, *key, sealed.kind, sealed.kid, sealed.title, sealed.tax_number
    )


async def reseal_invoice(connection: Connection, key: OrderKey, sealed: SealedInvoice) -> None:
    """Replace what a locked row holds by the same, sealed under another key."""
    await connection.execute(RESEAL_INVOICE, *key, sealed.kid, sealed.title, sealed.tax_number)


async def read_invoice(connection: Connection, key: OrderKey) -> SealedInvoice | None:
    """Return an order's invoice wish; None if there is none."""
    row = await connection.fetchrow(SELECT_INVOICE, *key)
    return None if row is None else _invoice(row)


async def old_invoices(
    connection: Connection, kids: Sequence[str], rows_max: int
) -> list[tuple[OrderKey, SealedInvoice]]:
    """Lock rows that are sealed under one of these keys."""
    rows = await connection.fetch(SELECT_OLD_INVOICES, list(kids), rows_max)
    return [(_key(row), _invoice(row)) for row in rows]


async def named_kids(shard: Shard) -> set[str]:
    """Return the name of every key that some row of this shard is sealed under."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_KIDS_OF_DELIVERIES)
        rows += await connection.fetch(SELECT_KIDS_OF_INVOICES)
    return {row["key_id"] for row in rows}


def _key(row: Mapping[str, Any]) -> OrderKey:
    return OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"])


def _delivery(row: Mapping[str, Any]) -> SealedDelivery:
    return SealedDelivery(
        kid=row["key_id"],
        receiver=row["receiver"],
        mobile=row["mobile"],
        address=row["address"],
        mobile_index=row["mobile_index"],
    )


def _invoice(row: Mapping[str, Any]) -> SealedInvoice:
    return SealedInvoice(
        kind=InvoiceKind(row["kind"]),
        kid=row["key_id"],
        title=row["title"],
        tax_number=row["tax_number"],
    )
