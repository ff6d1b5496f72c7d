"""The flush: one transaction for lease, epoch, offset and orders."""

import asyncio

import asyncpg
import pytest

from app.kernel.errors import ShardUnavailable
from app.orders.flush_report import Position, RecoverReason
from app.orders.flush_store import LetterReason, flush_batch, flushable_positions
from app.orders.order import Order, OrderState, Ticket, TicketState
from app.orders.store import read_ticket
from app.orders.stream import STREAM_START, EntryId
from app.storage.shards import DatabaseSettings, Shard
from tests.real_stores import session
from tests.stores.orders.bucket_rows import (
    BUCKET,
    EPOCH,
    GRANTED,
    PRICE_MINOR,
    SALE,
    entry,
    junk,
    key_hash,
    order_key,
    wish,
)

COUNTS = ("reserved", "units_flushed", "units_released", "orders_seen", "stream_ms")


async def test_a_batch_becomes_rows_events_and_an_offset(bucket):
    report = await bucket.flush(entry(1, 0, "ann", wish("bob", 2)), entry(2, 2, "cat"))

    assert (report.rows, report.units, report.duplicates, report.letters) == (3, 4, 0, 0)
    assert report.position == Position(SALE, BUCKET, EPOCH, EntryId(1002, 0))
    assert await bucket.lease(*COUNTS) == (4, 4, 0, 3, 1002)
    assert await bucket.shoppers() == ["ann", "bob", "cat"]
    (event,) = await bucket.rows("SELECT * FROM order_events WHERE seq = 1")
    assert (event["number"], event["event"], event["state"]) == (1, "placed", "pending")


async def test_a_row_says_what_the_entry_and_the_lease_say(bucket):
    placed_at_ms = 1_700_000_000_123
    await bucket.flush(
        entry(1, 0, wish("bob", 2, "k1", reference="ref-1"), placed_at_ms=placed_at_ms)
    )

    order = await read_ticket(bucket.shard, order_key(0))
    assert isinstance(order, Order)
    assert (order.shopper, order.sku, order.merchant) == ("bob", "tea", "acme")
    assert (order.quantity, order.price_minor, order.total_minor, order.currency) == (
        2,
        PRICE_MINOR,
        2 * PRICE_MINOR,
        "CNY",
    )
    assert order.state is OrderState.PENDING
    assert order.placed_at.timestamp() == placed_at_ms / 1000
    assert (order.key_hash, order.fingerprint) == (key_hash("k1"), b"f" * 8)
    assert order.reference == "ref-1"


@pytest.mark.parametrize(
    ("placed_in_seconds", "from_placed"),
    [(-3600, False), (3600, True)],
)
async def test_the_deadline_counts_from_the_later_of_placing_and_writing(
    bucket, placed_in_seconds, from_placed
):
    (row,) = await bucket.rows("SELECT extract(epoch FROM now()) AS now")
    placed_at_ms = int((float(row["now"]) + placed_in_seconds) * 1000)
    await bucket.flush(entry(1, 0, "ann", placed_at_ms=placed_at_ms))

    (told,) = await bucket.rows(
        "SELECT pay_by - placed_at = interval '900 s' AS from_placed, "
        "       pay_by - recorded_at = interval '900 s' AS from_recorded FROM orders"
    )
    assert tuple(told.values()) == (from_placed, not from_placed)


# Fences.


async def test_a_batch_from_an_old_offset_is_fenced_and_writes_nothing(bucket):
    first = entry(1, 0, "ann")
    await bucket.flush(first)
    before = await bucket.lease(*COUNTS)

    report = await flush_batch(bucket.shard, Position(SALE, BUCKET, EPOCH, STREAM_START), [first])

    assert report.fenced
    assert (report.rows, report.duplicates, report.letters) == (0, 0, 0)
    assert await bucket.lease(*COUNTS) == before
    assert await bucket.shoppers() == ["ann"]


@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 1])
async def test_a_batch_of_another_epoch_is_fenced(bucket, epoch):
    report = await flush_batch(
        bucket.shard, Position(SALE, BUCKET, epoch, STREAM_START), [entry(1, 0, "ann")]
    )

    assert report.fenced
    assert await bucket.shoppers() == []


async def test_a_bucket_that_is_closed_or_unknown_is_fenced(bucket):
    unknown = Position(SALE, 9, EPOCH, STREAM_START)
    assert (await flush_batch(bucket.shard, unknown, [entry(1, 0, "ann")])).fenced
    await bucket.execute("UPDATE bucket_leases SET state = 'closed'")
    assert (await bucket.flush(entry(1, 0, "ann"))).fenced
    assert await flushable_positions(bucket.shard) == []


async def test_two_flushers_of_one_bucket_write_a_batch_once(bucket):
    batch = [entry(1, 0, "ann", "bob"), entry(2, 2, "cat")]
    reports = await asyncio.gather(
        *(flush_batch(bucket.shard, bucket.position, batch) for _ in range(5))
    )

    assert sorted(report.fenced for report in reports) == [False, True, True, True, True]
    assert await bucket.shoppers() == ["ann", "bob", "cat"]
    assert await bucket.lease("reserved", "orders_seen") == (3, 3)


async def test_a_second_flusher_waits_for_the_first(bucket):
    async with session(bucket.shard.url) as other, other.transaction():
        await other.execute("SELECT 1 FROM bucket_leases FOR UPDATE")
        waiting = asyncio.create_task(bucket.flush(entry(1, 0, "ann")))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        assert await other.fetchval("SELECT count(*) FROM orders") == 0
    assert (await waiting).rows == 1


async def test_what_a_shard_did_not_commit_is_written_by_the_next_try(bucket):
    """The lease row is held for longer than lock_timeout: the flush is given up whole."""
    impatient = Shard(1, bucket.shard.url, DatabaseSettings(lock_timeout_ms=100))
    async with session(bucket.shard.url) as other, other.transaction():
        await other.execute("SELECT 1 FROM bucket_leases FOR UPDATE")
        with pytest.raises(ShardUnavailable):
            await flush_batch(impatient, bucket.position, [entry(1, 0, "ann")])
    await impatient.close()
    assert await bucket.shoppers() == []

    assert (await bucket.flush(entry(1, 0, "ann"))).rows == 1


# What stops an open bucket.


async def test_a_gap_ends_the_batch_before_it_and_then_stops_the_bucket(bucket):
    sound, beyond = entry(1, 0, "ann"), entry(2, 5, "bob")

    assert (await bucket.flush(sound, beyond)).rows == 1
    assert await bucket.lease("recover_reason", "orders_seen") == (None, 1)
    report = await bucket.flush(beyond)

    assert report.recover is RecoverReason.GAP
    assert await bucket.lease("recover_reason", "orders_seen", "stream_ms") == ("gap", 1, 1001)
    assert await bucket.shoppers() == ["ann"]


async def test_an_unreadable_entry_ends_the_batch_before_it_and_then_stops_the_bucket(bucket):
    assert (await bucket.flush(entry(1, 0, "ann"), junk(2), entry(3, 1, "bob"))).rows == 1
    report = await bucket.flush(junk(2), entry(3, 1, "bob"))

    assert report.recover is RecoverReason.UNREADABLE_ENTRY
    assert await bucket.lease("recover_reason", "stream_ms") == ("unreadable_entry", 1001)
    assert await bucket.letters() == []


async def test_units_beyond_the_lease_stop_an_open_bucket_and_write_nothing(bucket):
    report = await bucket.flush(entry(1, 0, *(wish(f"s{i}", 2) for i in range(11))))

    assert report.recover is RecoverReason.LEASE_OVERRUN
    assert await bucket.lease("recover_reason", *COUNTS) == ("lease_overrun", 0, 0, 0, 0, 0)
    assert await bucket.shoppers() == []


async def test_a_bucket_can_be_sold_to_the_last_unit(bucket):
    report = await bucket.flush(entry(1, 0, *(wish(f"s{i}", 2) for i in range(GRANTED // 2))))

    assert (report.recover, report.units) == (None, GRANTED)


async def test_the_first_reason_to_recover_stays(bucket):
    await bucket.execute("UPDATE bucket_leases SET recover_reason = 'operator_now'")
    await bucket.flush(junk(1))

    assert await bucket.lease("recover_reason") == ("operator_now",)


# While the bucket drains nothing stops the flush.


async def test_while_draining_a_gap_moves_the_count_on_and_is_told(bucket):
    await bucket.drain()
    report = await bucket.flush(entry(1, 0, "ann"), entry(2, 5, "bob"))

    assert (report.rows, report.recover) == (2, RecoverReason.GAP)
    assert await bucket.lease("orders_seen", "stream_ms", "recover_reason") == (6, 1002, None)
    assert await bucket.shoppers() == ["ann", "bob"]


async def test_while_draining_an_unreadable_entry_becomes_one_letter_with_its_bytes(bucket):
    await bucket.drain()
    report = await bucket.flush(entry(1, 0, "ann"), junk(2), entry(3, 2, "bob"))

    assert (report.rows, report.letters) == (2, 1)
    assert await bucket.shoppers() == ["ann", "bob"]
    (letter,) = await bucket.rows("SELECT * FROM dead_letters")
    assert (letter["reason"], letter["raw"]) == (LetterReason.UNREADABLE, b"junk")
    assert letter["detail"] == {"entry_id": "1002-0"}
    assert await bucket.moves("id") == []


async def test_while_draining_each_unreadable_entry_has_a_letter_of_its_own(bucket):
    await bucket.drain()
    report = await bucket.flush(junk(1, b"one"), junk(2, b"two"), entry(3, 0, "ann"))

    assert (report.rows, report.letters) == (1, 2)
    letters = await bucket.rows("SELECT raw FROM dead_letters ORDER BY id")
    assert [letter["raw"] for letter in letters] == [b"one", b"two"]


async def test_a_letter_of_an_unreadable_entry_rejects_no_ticket_that_has_a_row(bucket):
    await bucket.drain()
    await bucket.flush(junk(1), entry(2, 0, "ann"))

    both = await bucket.rows(
        "SELECT FROM dead_letters JOIN orders USING (sale, bucket, epoch, seq)"
    )
    assert both == []


async def test_while_draining_the_oldest_orders_keep_the_units(bucket):
    await bucket.drain()
    report = await bucket.flush(entry(1, 0, *(wish(f"s{i}", 2) for i in range(12))))

    assert (report.rows, report.units, report.letters) == (10, GRANTED, 2)
    assert await bucket.shoppers() == [f"s{i}" for i in range(10)]
    assert await bucket.letters() == [
        (10, LetterReason.LOST_IN_RECOVERY, 2),
        (11, LetterReason.LOST_IN_RECOVERY, 2),
    ]
    assert await bucket.lease(*COUNTS) == (20, 20, 0, 12, 1001)
    assert await bucket.moves("id") == []


async def test_while_draining_poison_is_parked_once_although_the_batch_is_written_twice(bucket):
    await bucket.drain()
    orders = [wish("poison", 2, reference="\0"), *(wish(f"s{i}", 2) for i in range(11))]
    report = await bucket.flush(entry(1, 0, *orders))

    assert (report.rows, report.letters) == (10, 2)
    assert await bucket.letters() == [
        (11, LetterReason.LOST_IN_RECOVERY, 2),
        (0, LetterReason.UNREADABLE, 2),
    ]


# Keys that are taken, and orders that are there.


async def test_a_key_that_another_order_owns_makes_a_letter_and_a_return(bucket):
    await bucket.flush(entry(1, 0, wish("ann", 1, "k1")))
    report = await bucket.flush(entry(2, 1, wish("ann", 2, "k1"), "bob"))

    assert (report.rows, report.letters, report.duplicates) == (1, 1, 0)
    assert await bucket.letters() == [(1, LetterReason.KEY_TAKEN, 2)]
    columns = ("kind", "state", "units", "shopper", "epoch", "order_epoch", "order_seq")
    columns += ("owner_epoch", "owner_seq", "key_hash")
    assert await bucket.moves(*columns) == [
        ("return", "asked", 2, "ann", EPOCH, EPOCH, 1, EPOCH, 0, key_hash("k1"))
    ]
    assert await bucket.lease(*COUNTS) == (2, 2, 2, 3, 1002)


async def test_a_key_taken_twice_in_one_batch_belongs_to_the_older_order(bucket):
    report = await bucket.flush(entry(1, 0, wish("ann", 1, "k1"), wish("ann", 1, "k1")))

    assert (report.rows, report.letters) == (1, 1)
    assert await bucket.moves("order_seq", "owner_seq") == [(1, 0)]


async def test_an_order_of_an_older_epoch_still_owns_its_key(bucket):
    await bucket.flush(entry(1, 0, wish("ann", 1, "k1")))
    await bucket.execute(
        "UPDATE bucket_leases SET epoch = 4, stream_ms = 0, stream_seq = 0, orders_seen = 0"
    )
    bucket.position = Position(SALE, BUCKET, 4, STREAM_START)
    await bucket.flush(entry(1, 0, wish("ann", 1, "k1")))

    assert await bucket.moves("epoch", "owner_epoch", "owner_seq") == [(4, EPOCH, 0)]


async def test_an_order_that_is_there_already_is_counted_and_not_written(bucket):
    """A row of the same place, shopper and key: what a damaged offset would meet."""
    await bucket.flush(entry(1, 0, "ann", "bob"))
    await bucket.execute(
        "UPDATE bucket_leases SET stream_ms = 0, orders_seen = 0, reserved = 0, units_flushed = 0"
    )
    bucket.position = Position(SALE, BUCKET, EPOCH, STREAM_START)
    report = await bucket.flush(entry(1, 0, "ann", "bob"))

    assert (report.rows, report.units, report.duplicates, report.letters) == (0, 0, 2, 0)
    assert await bucket.lease("reserved", "orders_seen") == (0, 2)
    assert await bucket.letters() == []


async def test_another_order_in_the_same_place_is_no_replay(bucket):
    await bucket.flush(entry(1, 0, "ann"))
    await bucket.execute("UPDATE bucket_leases SET stream_ms = 0, orders_seen = 0")
    bucket.position = Position(SALE, BUCKET, EPOCH, STREAM_START)
    report = await bucket.flush(entry(1, 0, "bob"))

    assert (report.rows, report.duplicates, report.letters) == (0, 0, 1)


# Poison.


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_poison_is_found_and_the_rest_of_the_batch_flows(bucket, place):
    orders = [wish(f"s{i}") for i in range(7)]
    orders[place] = wish("poison", 2, reference="a\0b")
    report = await bucket.flush(entry(1, 0, *orders[:4]), entry(2, 4, *orders[4:]))

    assert (report.rows, report.letters) == (6, 1)
    assert await bucket.shoppers() == [f"s{i}" for i in range(7) if i != place]
    assert await bucket.letters() == [(place, LetterReason.UNREADABLE, 2)]
    assert await bucket.moves("units", "shopper", "order_seq", "owner_seq") == [
        (2, "poison", place, None)
    ]
    assert await bucket.lease(*COUNTS) == (6, 6, 2, 7, 1002)
    (letter,) = await bucket.rows("SELECT raw, detail FROM dead_letters")
    assert b"a\\x00b" in letter["raw"]
    assert letter["detail"]["sqlstate"] == "22021"


async def test_a_batch_of_poison_alone_moves_the_offset(bucket):
    report = await bucket.flush(entry(1, 0, *(wish(f"s{i}", reference="\0") for i in range(5))))

    assert (report.rows, report.letters) == (0, 5)
    assert await bucket.lease("orders_seen", "stream_ms", "reserved") == (5, 1001, 0)


async def test_a_shopper_whose_name_postgres_cannot_hold_is_parked(bucket):
    report = await bucket.flush(entry(1, 0, "ann", "b\0b", "cat"))

    assert (report.rows, report.letters) == (2, 1)
    (letter,) = await bucket.rows("SELECT shopper FROM dead_letters")
    assert letter["shopper"] == "b\ufffdb"


async def test_more_units_than_an_order_may_have_is_poison(bucket):
    """The table allows 1 to 1000; the script and the request allow less."""
    await bucket.execute("UPDATE bucket_leases SET granted = 5000")
    report = await bucket.flush(entry(1, 0, "ann", wish("bob", 1_001)))

    assert (report.rows, report.letters) == (1, 1)
    (letter,) = await bucket.rows("SELECT detail FROM dead_letters")
    assert letter["detail"]["constraint"] == "orders_quantity_check"


# Tickets.


async def test_a_ticket_reads_as_far_as_the_flush_has_come(bucket):
    await bucket.flush(entry(1, 0, "ann", wish("bob", reference="\0")))

    assert isinstance(await read_ticket(bucket.shard, order_key(0)), Order)
    assert await read_ticket(bucket.shard, order_key(1)) == Ticket(
        order_key(1), TicketState.REJECTED, LetterReason.UNREADABLE
    )
    assert await read_ticket(bucket.shard, order_key(2)) == Ticket(order_key(2), TicketState.QUEUED)
    assert await read_ticket(bucket.shard, order_key(0, EPOCH - 1)) == Ticket(
        order_key(0, EPOCH - 1), TicketState.REJECTED, "lost_in_recovery"
    )
    assert await read_ticket(bucket.shard, order_key(0, EPOCH + 1)) is None
    assert await read_ticket(bucket.shard, order_key(0)._replace(bucket=9)) is None


async def test_a_ticket_that_the_flush_passed_over_while_draining_is_lost(bucket):
    await bucket.drain()
    await bucket.flush(entry(1, 0, "ann"), junk(2), entry(3, 3, "bob"))

    for seq in (1, 2):
        assert await read_ticket(bucket.shard, order_key(seq)) == Ticket(
            order_key(seq), TicketState.REJECTED, "lost_in_recovery"
        )


async def test_a_ticket_that_was_passed_without_a_trace_is_a_bug_and_no_answer(bucket):
    await bucket.execute("UPDATE bucket_leases SET orders_seen = 1")

    with pytest.raises(AssertionError, match="without a trace"):
        await read_ticket(bucket.shard, order_key(0))


async def test_the_errors_that_are_poison_are_those_of_the_row_itself():
    """What says `not now` must never be taken for poison (disk full, deadlock, timeout)."""
    not_now = [
        asyncpg.DiskFullError,
        asyncpg.DeadlockDetectedError,
        asyncpg.LockNotAvailableError,
        asyncpg.QueryCanceledError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.AdminShutdownError,
    ]
    poison = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
    assert [error for error in not_now if issubclass(error, poison)] == []
