"""Orders that wait for their money, written as rows: what callbacks of the bench pay."""

from typing import Final

from app.kernel.ids import OrderKey
from app.orders.sealing import OrderIds
from app.payments.intent import attempt_number
from app.storage.shards import Shards

SALE: Final = 1
PRICE_MINOR: Final = 8_880
CURRENCY: Final = "CNY"
PRODUCT: Final = "native"  # both of the bench's providers have it
INSERT_ORDERS: Final = """
INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                    total_minor, currency, merchant, state, placed_at, pay_by, key_hash,
                    fingerprint)
SELECT $1::int, $2::smallint, 1, number, 's' || number, 'tea', 1, 1, $4::bigint, $4::bigint,
       'CNY', 'm1', 'pending', now(), now() + interval '1 hour',
       decode(md5($2::smallint || '-' || number), 'hex'),
       '\\x0102030405060708'
FROM generate_series(0, $3::int - 1) AS number"""
INSERT_ATTEMPTS: Final = """
INSERT INTO payment_attempts (number, sale, bucket, epoch, seq, ordinal, idempotency_key,
                              fingerprint, provider, product, amount_minor, currency, state,
                              expires_at, next_query_at)
SELECT number, $1::int, $2::smallint, 1, place - 1, 1, 'key', '\\x01', $4, $5, $6::bigint,
       'CNY', 'open', now() + interval '1 hour', now() + interval '1 hour'
FROM unnest($3::text[]) WITH ORDINALITY AS told (number, place)"""


async def open_payments(
    shards: Shards, ids: OrderIds, provider: str, buckets: int, count: int
) -> list[str]:
    """
    Write orders with an open attempt each, once for a deployment.

    Args:
        shards: without an order in sale 1.
        ids: of the deployment.
        provider: that is to carry the attempts.
        buckets: to spread them over, and so over as many shards.
        count: of orders, a multiple of `buckets`.

    Returns:
        The attempts' numbers, the buckets in turn.
    """
    parts = [await _open_in(shards, ids, provider, one, count // buckets) for one in range(buckets)]
    return [number for turn in zip(*parts, strict=True) for number in turn]


async def _open_in(
    shards: Shards, ids: OrderIds, provider: str, bucket: int, count: int
) -> list[str]:
    keys = (OrderKey(SALE, bucket, 1, seq) for seq in range(count))
    numbers = [str(attempt_number(ids.write(key, f"s{key.seq}"), 1)) for key in keys]
    async with shards.of(SALE, bucket).connection() as connection:
        await connection.execute(INSERT_ORDERS, SALE, bucket, count, PRICE_MINOR)
        await connection.execute(
            INSERT_ATTEMPTS, SALE, bucket, numbers, provider, PRODUCT, PRICE_MINOR
        )
        await connection.execute("ANALYZE")
    return numbers
