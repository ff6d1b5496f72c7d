"""How far an order has come, as its stream is told, agrees with what its ticket reads."""

from app.kernel.ids import OrderKey
from app.orders.events.store import QUEUED, REJECTED, Mark, read_last_placed, read_marks
from app.orders.order import Order, Ticket
from app.orders.store import read_ticket
from tests.stores.orders.bucket_rows import entry

PARKED = """
INSERT INTO dead_letters (kind, reason, sale, bucket, epoch, seq, raw)
VALUES ('order', 'key_taken', $1, $2, $3, $4, '')"""
LEASE = "SELECT sale, bucket, epoch, orders_seen FROM bucket_leases"


async def test_row_queue_letter_and_older_epoch_are_told_apart(bucket):
    await bucket.flush(entry(1, 0, "ann"))
    async with bucket.shard.connection() as connection:
        lease = await connection.fetchrow(LEASE)
        sale, number, epoch, seen = lease
        letter = OrderKey(sale, number, epoch, seen + 7)
        await connection.execute(PARKED, *letter)
    row = OrderKey(sale, number, epoch, 0)
    queued = OrderKey(sale, number, epoch, seen)
    lost = OrderKey(sale, number, epoch - 1, 99)
    keys = [letter, queued, row, lost]

    marks = await read_marks(bucket.shard, keys)

    assert marks == [REJECTED, QUEUED, Mark(1, is_final=False), REJECTED]
    for key, mark in zip(keys, marks, strict=True):
        found = await read_ticket(bucket.shard, key)
        assert isinstance(found, Order) == (mark.number > 0 and not mark.is_final)
        if isinstance(found, Ticket):
            assert (found.state == "rejected") == mark.is_final


async def test_a_final_state_ends_it_and_the_last_order_is_the_newest(bucket):
    await bucket.flush(entry(1, 0, "ann"))
    async with bucket.shard.connection() as connection:
        sale, number, epoch, _ = await connection.fetchrow(LEASE)
        await connection.execute(
            "UPDATE orders SET state = 'closed', reason = 'expired', units_held = 0,"
            " closed_at = now(), last_event = 3"
        )
        placed_at = await connection.fetchval("SELECT max(placed_at) FROM orders")

    [mark] = await read_marks(bucket.shard, [OrderKey(sale, number, epoch, 0)])

    assert mark == Mark(3, is_final=True)
    assert await read_last_placed(bucket.shard, sale) == placed_at
    assert await read_last_placed(bucket.shard, sale + 1) is None
