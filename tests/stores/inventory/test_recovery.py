"""A bucket gets its next epoch: what sold is kept, what did not is sold again."""

import asyncio

import pytest

from app.inventory.bucket import Gate, RememberedOrder, RenewCode, fence_bucket
from app.inventory.epoch_keys import write_epoch
from app.inventory.lease import BucketMode
from app.inventory.lease_store import (
    ask_to_recover,
    begin_draining,
    begin_epoch,
    close_bucket,
    open_epoch,
)
from app.inventory.recovery import EPOCH_ALARM, RecoverySettings
from app.kernel.clock import unix_ms
from app.kernel.errors import BucketRecovering
from app.kernel.ids import EPOCH_MAX
from app.orders.answers import PlaceCode, Refused
from app.orders.order import Ticket, TicketState
from app.orders.selling import Accepted, NotPlaced
from app.orders.store import read_ticket
from app.orders.stream import PLACE_ORDERS
from app.storage.lua import load_scripts
from tests.real_stores import session
from tests.stores.orders.running_sale import IDS, LONG_AGO
from tests.waiting import eventually


@pytest.fixture
async def sold(shop):
    """Ten units, limit 2: ann has two, flushed; bob has one, only in the stream."""
    await shop.open()
    await shop.buy("ann", 2, key="k-ann")
    await shop.flush()
    await shop.buy("bob", key="k-bob")
    return shop


async def test_the_first_epoch_opens_with_every_granted_unit(shop):
    await shop.publish()
    await shop.grant()
    assert (await shop.lease()).epoch == 0
    opened = await shop.recover(reason="first_opening")

    assert (opened.epoch, opened.state, opened.was_opened) == (1, BucketMode.OPEN, True)
    assert shop.notes.opened == [(1, "first_opening")]
    state = await shop.state()
    assert (state.remaining, state.limit, state.gate) == (10, 2, Gate.OPEN)
    assert await shop.at_rest() == ""


async def test_nobody_sells_before_the_first_renewal(shop):
    await shop.publish()
    await shop.grant()
    await shop.new_recovery(shop.shard()).open_new_epoch(
        await shop.lease(), "first_opening", LONG_AGO, PLACE_ORDERS
    )
    assert (await shop.state()).gate is Gate.SHUT
    assert await shop.click_once("ann") is NotPlaced.RECOVERING


async def test_a_new_epoch_has_what_postgres_and_the_stream_say(sold):
    opened = await sold.recover()

    assert (opened.epoch, opened.reserved, opened.granted) == (2, 3, 10)
    assert await sold.remaining() == 7
    assert await sold.state(epoch=1) is None
    assert sold.notes.alarms == []
    assert await sold.at_rest() == ""


async def test_a_replay_is_answered_with_the_same_order_in_any_later_epoch(sold):
    first = {await sold.buy("ann", 2, key="k-ann"), await sold.buy("bob", key="k-bob")}
    for _ in range(2):
        await sold.recover()
        again = {await sold.buy("ann", 2, key="k-ann"), await sold.buy("bob", key="k-bob")}
        assert again == first
    mismatch = await sold.click("bob", 2, key="k-bob")
    assert mismatch == Refused(PlaceCode.KEY_MISMATCH)


async def test_limits_hold_over_epochs(sold):
    await sold.recover()

    assert (await sold.click("ann")).units_allowed == 0
    assert (await sold.click("bob", 2)).units_allowed == 1
    await sold.buy("bob", 1)


async def test_every_ticket_of_the_old_epoch_is_answered(sold):
    keys = [await sold.buy(shopper) for shopper in ("cat", "dan")]
    assert (await read_ticket(sold.shard(), keys[0])).state is TicketState.QUEUED
    await sold.recover()

    assert [(await read_ticket(sold.shard(), key)).shopper for key in keys] == ["cat", "dan"]


async def test_tickets_whose_entries_are_lost_are_rejected_and_their_units_sold_again(sold):
    key = await sold.buy("cat", 2)
    await sold.redis.delete(sold.keys().orders)
    await sold.recover()

    ticket = await read_ticket(sold.shard(), key)
    assert ticket == Ticket(key, TicketState.REJECTED, "lost_in_recovery")
    assert await sold.remaining() == 8
    assert await sold.at_rest() == ""
    await sold.buy("cat", 2)


async def test_when_every_key_is_gone_the_alarm_is_raised_and_the_wait_is_bounded(sold):
    await sold.redis.delete(*sold.keys().all)
    opened = await sold.recover(reason="state_missing")

    assert sold.notes.alarms == ["redis_state_lost"]
    assert (opened.epoch, await sold.remaining()) == (2, 8)


async def test_an_operator_can_shorten_the_wait_for_lost_state(sold):
    await sold.redis.delete(*sold.keys().all)
    patient = sold.new_recovery(sold.shard(), RecoverySettings(lost_wait_ms=60_000, poll_ms=5))
    opening = asyncio.create_task(
        patient.open_new_epoch(await sold.lease(), "state_missing", LONG_AGO, PLACE_ORDERS)
    )
    await eventually(lambda: sold.notes.alarms)
    assert await ask_to_recover(sold.shard(), sold.sale.number, None, "operator_now") == 1

    async with asyncio.timeout(10):
        opened = await opening
    assert (opened.epoch, opened.recover_reason) == (2, None)


async def test_keys_that_come_back_during_the_wait_are_drained(sold):
    """An empty server in the wrong place must not turn tickets into losses."""
    stream, state = [await sold.redis.dump(key) for key in (sold.keys().orders, sold.keys().state)]
    await sold.redis.delete(*sold.keys().all)
    patient = sold.new_recovery(sold.shard(), RecoverySettings(lost_wait_ms=60_000, poll_ms=5))
    async with sold.flushing():
        opening = asyncio.create_task(
            patient.open_new_epoch(await sold.lease(), "state_missing", LONG_AGO, PLACE_ORDERS)
        )
        await eventually(lambda: sold.notes.alarms)
        await sold.redis.restore(sold.keys().orders, 0, stream)
        await sold.redis.restore(sold.keys().state, 0, state)
        await opening
    assert await sold.value("SELECT count(*) FROM orders") == 2
    assert await sold.remaining() == 7


async def test_an_attempt_that_failed_before_it_opened_does_not_hold_up_the_next(sold):
    """Its keys were never written: nothing was lost, so no alarm and no wait."""
    await sold.flush()
    lease = await begin_draining(sold.shard(), await sold.lease())
    assert await begin_epoch(sold.shard(), lease) is not None
    slow = RecoverySettings(lost_wait_ms=60_000)
    async with asyncio.timeout(10):
        opened = await sold.new_recovery(sold.shard(), slow).open_new_epoch(
            await sold.lease(), "test", LONG_AGO, PLACE_ORDERS
        )

    assert (opened.epoch, sold.notes.alarms) == (3, [])
    await sold.renew()
    assert await sold.remaining() == 7
    assert await sold.at_rest() == ""


# Races of epochs.


async def rebuild_of(shop):
    lease = await begin_draining(shop.shard(), await shop.lease())
    rebuild = await begin_epoch(shop.shard(), lease)
    assert rebuild is not None
    return rebuild


async def test_who_wakes_up_after_another_took_the_next_epoch_opens_nothing(sold):
    await sold.flush()
    rebuild = await rebuild_of(sold)  # a coordinator that freezes here
    opened = await sold.recover()
    assert opened.epoch == rebuild.lease.epoch + 1

    server = await sold.server.identify()
    await write_epoch(
        sold.redis,
        sold.keys(epoch=rebuild.lease.epoch),
        rebuild,
        incarnation=server.incarnation,
        backlog_max=10,
    )
    assert await open_epoch(sold.shard(), rebuild.lease, server, "0" * 40) is None
    assert (await sold.lease()).epoch == opened.epoch
    assert (await sold.state(epoch=rebuild.lease.epoch)).gate is Gate.SHUT
    await sold.buy("cat")
    assert await sold.at_rest() == ""


async def test_an_epoch_that_somebody_has_begun_to_write_is_given_up(sold):
    await sold.flush()
    await sold.redis.hset(sold.keys(epoch=2).shoppers, "eve", 1)
    with pytest.raises(BucketRecovering, match="begun to write"):
        await sold.recover()

    assert (await sold.recover()).epoch == 3
    assert await sold.at_rest() == ""


async def test_holdings_that_contradict_the_lease_do_not_sell(sold):
    await sold.flush()
    rebuild = await rebuild_of(sold)
    rebuild.holdings["eve"] = 5
    with pytest.raises(BucketRecovering, match="hold otherwise"):
        await write_epoch(
            sold.redis, sold.keys(epoch=2), rebuild, incarnation="0" * 16, backlog_max=10
        )
    assert await sold.state(epoch=2) is None


@pytest.mark.parametrize("name", ["shoppers", "replays"])
async def test_what_reads_back_otherwise_than_it_was_written_does_not_sell(sold, name):
    await sold.flush()
    rebuild = await rebuild_of(sold)
    stranger = {"shoppers": ("eve", 1), "replays": (b"e" * 16, b"e" * 21)}[name]
    meddling = Meddling(sold.redis, sold.keys(epoch=2).named(name), stranger)
    with pytest.raises(BucketRecovering, match=f"{name} read back otherwise"):
        await write_epoch(
            meddling, sold.keys(epoch=2), rebuild, incarnation="0" * 16, backlog_max=10
        )
    assert await sold.state(epoch=2) is None


class Meddling:
    """The real client; but somebody else writes one field before anything is read back."""

    def __init__(self, redis, key, stranger):
        self._redis, self._key, self._stranger = redis, key, stranger

    def __getattr__(self, name):
        return getattr(self._redis, name)

    async def hscan(self, *asked, **how):
        await self._redis.hset(self._key, *self._stranger)
        return await self._redis.hscan(*asked, **how)


async def test_what_is_remembered_is_packed_by_postgres_as_it_is_by_python(sold):
    await sold.flush()
    rebuild = await rebuild_of(sold)
    rows = await sold.rows("SELECT key_hash, epoch, seq, placed_at, fingerprint FROM orders")
    packed = {
        row["key_hash"]: RememberedOrder(
            row["epoch"], row["seq"], unix_ms(row["placed_at"]), row["fingerprint"]
        ).pack()
        for row in rows
    }
    assert rebuild.replays == packed
    assert len(packed) == 2


async def test_the_next_epoch_is_taken_once_by_however_many(sold):
    await sold.flush()
    lease = await begin_draining(sold.shard(), await sold.lease())
    taken = await asyncio.gather(*(begin_epoch(sold.shard(), lease) for _ in range(8)))

    assert [one.lease.epoch for one in taken if one is not None] == [2]


async def test_an_epoch_that_was_opened_meanwhile_is_not_taken_undrained(sold):
    """Read as never opened, opened and sold from, drained by a third: it must be fenced."""
    await sold.flush()
    rebuild = await rebuild_of(sold)
    late = await begin_draining(sold.shard(), rebuild.lease)
    server = await sold.server.identify()
    assert await open_epoch(sold.shard(), rebuild.lease, server, "0" * 40) is not None
    assert await begin_draining(sold.shard(), late) is not None

    assert await begin_epoch(sold.shard(), late) is None


@pytest.mark.parametrize("closes_first", [True, False])
async def test_an_order_closed_while_the_epoch_changes_is_counted_once(sold, closes_first):
    """Both wait for the lease row; whoever comes second sees what the first did."""
    await sold.flush()
    await expire_all(sold)
    await fence_bucket(sold.redis, sold.keys())
    lease = await begin_draining(sold.shard(), await sold.lease())
    acts = [sold.close_orders, lambda: begin_epoch(sold.shard(), lease)]
    async with session(sold.shard().url) as other, other.transaction():
        await other.execute("SELECT 1 FROM bucket_leases FOR UPDATE")
        tasks = []
        for act in acts if closes_first else reversed(acts):
            tasks.append(asyncio.create_task(act()))
            await eventually(lambda: are_waiting(sold, len(tasks)))
    results = await asyncio.gather(*tasks)

    closed, rebuild = results if closes_first else reversed(results)
    assert closed == 4
    assert rebuild.lease.reserved == (0 if closes_first else 3)
    moves = await sold.rows("SELECT epoch FROM bucket_moves WHERE kind = 'return'")
    assert {move["epoch"] for move in moves} == {1 if closes_first else 2}
    await finish(sold, rebuild)
    assert await sold.at_rest() == ""
    assert await sold.remaining() == 10


async def are_waiting(shop, count):
    return count == await shop.value(
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND database IN "
        "(0, (SELECT oid FROM pg_database WHERE datname = current_database())) "
        "OR NOT granted AND locktype = 'transactionid'"
    )


async def finish(shop, rebuild):
    """Write and open the epoch of a rebuild."""
    server = await shop.server.identify()
    hashes = await load_scripts(shop.redis, server.incarnation)
    keys = shop.keys(epoch=rebuild.lease.epoch)
    await write_epoch(shop.redis, keys, rebuild, incarnation=server.incarnation, backlog_max=100)
    await open_epoch(shop.shard(), rebuild.lease, server, hashes[PLACE_ORDERS])
    await shop.renew()


async def expire_all(shop):
    await shop.execute(
        "UPDATE orders SET pay_by = now() - interval '1 s', "
        "placed_at = placed_at - interval '1 minute'"
    )


# Epochs are twelve bits of an order's id.


async def set_epoch(shop, epoch):
    """As if the bucket had recovered so often; what it holds is rebuilt in the next one."""
    await shop.flush()
    await shop.redis.delete(*shop.keys().all)
    await shop.execute(
        "UPDATE bucket_leases SET epoch = $1, state = 'draining', epoch_opened_at = NULL", epoch
    )


@pytest.mark.parametrize(
    ("opened", "alarms"),
    [(EPOCH_ALARM - 1, []), (EPOCH_ALARM, ["epochs_run_out"]), (4_094, ["epochs_run_out"])],
)
async def test_the_alarm_is_raised_by_each_epoch_from_3_500_on(sold, opened, alarms):
    await set_epoch(sold, opened - 1)
    assert (await sold.recover()).epoch == opened

    assert sold.notes.alarms == alarms
    cat = await sold.buy("cat")
    assert cat.epoch == opened
    assert IDS.read(IDS.write(cat, "cat"))[0] == cat
    assert await sold.at_rest() == ""


async def test_when_no_epoch_is_left_the_bucket_stays_shut_and_says_so_until_it_closes(sold):
    await set_epoch(sold, EPOCH_MAX - 1)
    for attempt in (1, 2):
        with pytest.raises(BucketRecovering, match="no epoch is left: close the sale"):
            await sold.recover()
        assert sold.notes.alarms == ["epochs_run_out"] * attempt
    lease = await sold.lease()
    assert (lease.epoch, lease.state) == (EPOCH_MAX - 1, "draining")
    assert await sold.click_once("cat") is NotPlaced.RECOVERING
    assert await sold.redis.exists(*sold.keys(epoch=EPOCH_MAX).all) == 0

    assert await sold.close_bucket()
    await sold.move()
    lease = await sold.lease()
    assert (lease.epoch, lease.state, await sold.pool()) == (EPOCH_MAX, "closed", 7)
    assert await sold.at_rest() == ""


# Renewals.


async def test_a_renewal_with_another_gate_opens_and_shuts_the_sale(sold):
    assert await sold.renew(gate=Gate.PAUSED) is RenewCode.RENEWED
    assert await sold.click("cat") == Refused(PlaceCode.PAUSED)
    assert await sold.renew(gate=Gate.CLOSED) is RenewCode.RENEWED
    assert await sold.click("cat") == Refused(PlaceCode.ENDED)
    assert await sold.renew() is RenewCode.RENEWED
    await sold.buy("cat")


async def test_a_fenced_epoch_is_renewed_by_nobody(sold):
    await sold.redis.hset(sold.keys().state, "fenced", 1)
    assert await sold.renew() is RenewCode.FENCED


# The end of a bucket.


async def test_a_bucket_that_closes_gives_its_unsold_units_back(sold):
    keys = [await sold.buy("ann", 2, key="k-ann"), await sold.buy("bob", key="k-bob")]
    assert await sold.close_bucket()
    await sold.move()

    lease = await sold.lease()
    assert (lease.state, lease.epoch, lease.granted, lease.reserved) == ("closed", 2, 3, 3)
    assert await sold.pool() == 7
    assert sold.notes.closed == [(sold.sale.number, 0)]
    assert await sold.redis.exists(*sold.keys().all) == 0
    assert await sold.at_rest() == ""
    for key, shopper in zip(keys, ("ann", "bob"), strict=True):
        assert (await read_ticket(sold.shard(), key)).shopper == shopper


async def test_late_clicks_on_a_closed_bucket_are_answered_from_postgres(sold):
    ann = await sold.buy("ann", 2, key="k-ann")
    await sold.close_bucket()

    replay = await eventually(lambda: accepted(sold, "ann", 2, "k-ann"))
    assert (replay.key, replay.is_replay) == (ann, True)
    assert await sold.click("ann", 1, key="k-ann") == Refused(PlaceCode.KEY_MISMATCH)
    assert await sold.click("cat", key="k-cat") == Refused(PlaceCode.ENDED)
    assert await sold.click("cat", 2, key="k-ann") == Refused(PlaceCode.ENDED)
    answers = await asyncio.gather(*(sold.click("ann", 2, key="k-ann") for _ in range(20)))
    assert {answer.key for answer in answers} == {ann}


async def accepted(shop, shopper, quantity, key):
    outcome = await shop.click_once(shopper, quantity, key=key)
    return outcome if isinstance(outcome, Accepted) else None


async def test_a_ticket_lost_before_the_bucket_closed_is_rejected(sold):
    key = await sold.buy("cat")
    await sold.redis.delete(sold.keys().orders)
    await sold.close_bucket()

    assert (await read_ticket(sold.shard(), key)).reason == "lost_in_recovery"


async def test_an_order_that_ends_after_its_bucket_goes_straight_to_the_pool(sold):
    await sold.close_bucket()
    await sold.move()
    await expire_all(sold)
    assert await sold.close_orders() == 4
    moves = await sold.rows("SELECT state, epoch FROM bucket_moves WHERE kind = 'return'")
    assert [tuple(move.values()) for move in moves] == [("debited", 2)] * 2
    for _ in range(2):
        await sold.move()

    assert await sold.pool() == 10
    assert (await sold.lease()).granted == 0
    assert await sold.at_rest() == ""


async def test_a_bucket_closes_once_however_often_it_is_tried(sold):
    await sold.flush()
    lease = await begin_draining(sold.shard(), await sold.lease())
    closed = await asyncio.gather(*(close_bucket(sold.shard(), lease) for _ in range(5)))
    await sold.move()

    assert sorted(closed) == [False, False, False, False, True]
    assert await sold.pool() == 7
    assert not await sold.close_bucket()


async def test_a_bucket_that_never_opened_can_close(shop):
    await shop.publish()
    await shop.grant()
    assert await shop.close_bucket()
    await shop.move()

    assert await shop.pool() == 10
    assert await shop.at_rest() == ""
