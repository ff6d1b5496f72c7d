"""After-sale cases in Postgres; who writes holds the row of the case's order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.fulfilment.after_sale import (
    AfterSale,
    AfterSaleKind,
    AfterSaleReason,
    AfterSaleState,
    Parcel,
)
from app.kernel.ids import OrderKey
from app.orders.store import THIS_ORDER
from app.storage.shards import Connection

_COLUMNS: Final = """sale, bucket, epoch, seq, ordinal, kind, state, reason, quantity,
    amount_minor, fingerprint, return_carrier, return_number, resent_carrier, resent_number,
    refund_number, asked_at, changed_at"""

SELECT_CASES: Final = f"SELECT {_COLUMNS} FROM after_sales WHERE {THIS_ORDER} ORDER BY ordinal"
SELECT_CASE: Final = f"SELECT {_COLUMNS} FROM after_sales WHERE {THIS_ORDER} AND ordinal = $5"
SELECT_CASE_BY_KEY: Final = f"""
SELECT {_COLUMNS} FROM after_sales WHERE {THIS_ORDER} AND idempotency_key = $5"""
INSERT_CASE: Final = f"""
INSERT INTO after_sales (sale, bucket, epoch, seq, ordinal, kind, state, reason, quantity,
                         amount_minor, idempotency_key, fingerprint)
VALUES ($1, $2, $3, $4, $5, $6, 'requested', $7, $8, $9, $10, $11)
RETURNING {_COLUMNS}"""
MOVE_CASE: Final = f"""
UPDATE after_sales
SET state = $6, changed_at = now(), refund_number = coalesce($8, refund_number),
    return_carrier = CASE WHEN $6 = 'goods_sent'::after_sale_state THEN $9
                          ELSE return_carrier END,
    return_number = CASE WHEN $6 = 'goods_sent'::after_sale_state THEN $10
                         ELSE return_number END,
    resent_carrier = CASE WHEN $6 = 'resent'::after_sale_state THEN $9 ELSE resent_carrier END,
    resent_number = CASE WHEN $6 = 'resent'::after_sale_state THEN $10 ELSE resent_number END
WHERE {THIS_ORDER} AND ordinal = $5 AND state = $7
RETURNING {_COLUMNS}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCase:
    """What a new row of after_sales says."""

    ordinal: int
    kind: AfterSaleKind
    reason: AfterSaleReason
    quantity: int
    amount_minor: int
    idempotency_key: str
    fingerprint: bytes


async def cases_of_order(connection: Connection, key: OrderKey) -> list[AfterSale]:
    """Return every case of an order, the first one first."""
    return [_case(row) for row in await connection.fetch(SELECT_CASES, *key)]


async def read_case(connection: Connection, key: OrderKey, ordinal: int) -> AfterSale | None:
    """Return one case of an order."""
    row = await connection.fetchrow(SELECT_CASE, *key, ordinal)
    return None if row is None else _case(row)


async def case_by_key(
    connection: Connection, key: OrderKey, idempotency_key: str
) -> AfterSale | None:
    """Return the case that an idempotency key has opened."""
    row = await connection.fetchrow(SELECT_CASE_BY_KEY, *key, idempotency_key)
    return None if row is None else _case(row)


async def insert_case(connection: Connection, key: OrderKey, new: NewCase) -> AfterSale:
    """Open a case."""
    row = await connection.fetchrow(
        INSERT_CASE,
        *key,
        new.ordinal,
        new.kind,
        new.reason,
        new.quantity,
        new.amount_minor,
        new.idempotency_key,
        new.fingerprint,
    )
    assert row is not None, key
    return _case(row)


async def move_case(
    connection: Connection,
    case: AfterSale,
    target: AfterSaleState,
    *,
    parcel: Parcel | None = None,
    refund_number: str | None = None,
) -> AfterSale:
    """Move a case to where its table allows; `parcel` carries the goods back or out again."""
    row = await connection.fetchrow(
        MOVE_CASE,
        *case.order_key,
        case.ordinal,
        target,
        case.state,
        refund_number,
        None if parcel is None else parcel.carrier,
        None if parcel is None else parcel.tracking_number,
    )
    assert row is not None, f"its order is locked, and yet it moved: {case.order_key}"
    return _case(row)


def _case(row: Mapping[str, Any]) -> AfterSale:
    return AfterSale(
        order_key=OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"]),
        ordinal=row["ordinal"],
        kind=AfterSaleKind(row["kind"]),
        state=AfterSaleState(row["state"]),
        reason=AfterSaleReason(row["reason"]),
        quantity=row["quantity"],
        amount_minor=row["amount_minor"],
        fingerprint=row["fingerprint"],
        returned_by=_parcel(row["return_carrier"], row["return_number"]),
        resent_by=_parcel(row["resent_carrier"], row["resent_number"]),
        refund_number=row["refund_number"],
        asked_at=row["asked_at"],
        changed_at=row["changed_at"],
    )


def _parcel(carrier: str | None, number: str | None) -> Parcel | None:
    if carrier is None or number is None:
        return None
    return Parcel(carrier=carrier, tracking_number=number)
