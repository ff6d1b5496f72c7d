"""What the start of a payment asks of Postgres beside the attempts."""

from typing import Final

from app.kernel.ids import OrderKey
from app.storage.shards import Connection

SELECT_SALE_ID: Final = """
SELECT sale_id FROM bucket_leases WHERE sale = $1 AND bucket = $2"""


async def read_sale_id(connection: Connection, key: OrderKey) -> str:
    """Return the public id of the sale that an order belongs to."""
    sale_id = await connection.fetchval(SELECT_SALE_ID, key.sale, key.bucket)
    assert isinstance(sale_id, str), f"an order of a bucket without a lease: {key}"
    return sale_id
