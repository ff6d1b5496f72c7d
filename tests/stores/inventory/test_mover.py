"""Moves: applied once, whenever the mover died, and superseded only by a later epoch."""

import asyncio
import contextlib

import pytest

from app.inventory.bucket import MoveCode, return_units, top_up, withdraw_units
from app.inventory.grants import Grants
from app.inventory.move_store import (
    ask_withdrawal,
    asked_moves,
    debit_withdrawal,
    debited_moves,
    mark_credited,
    mark_done,
    supersede_moves,
)
from app.inventory.mover import Mover, MoverSettings
from app.kernel.errors import ShardUnavailable
from app.orders.selling import Accepted
from app.sales.store import read_sales
from app.storage.shards import DatabaseSettings, LockPurpose, Shards
from tests.real_stores import session
from tests.waiting import eventually

MOVES_MAX = 100


@pytest.fixture
async def selling(shop):
    """Ten units, of which ann has two and bob one, flushed."""
    await shop.open()
    await shop.buy("ann", 2, key="k-ann")
    await shop.buy("bob")
    await shop.flush()
    return shop


async def expire(shop, *shoppers):
    """End the orders of these shoppers; their returns are asked for."""
    await shop.execute(
        "UPDATE orders SET pay_by = now() - interval '1 s', "
        "placed_at = placed_at - interval '1 minute' WHERE shopper = ANY($1)",
        list(shoppers),
    )
    assert await shop.close_orders() == 2 * len(shoppers)  # claimed, and closed


async def states(shop):
    rows = await shop.rows("SELECT kind, state FROM bucket_moves ORDER BY id")
    return [tuple(row.values()) for row in rows]


def arguments(move):
    return {"incarnation": move.incarnation, "move_id": str(move.id)}


async def test_a_top_up_is_applied_once_even_if_nobody_noted_it(selling):
    await selling.restock(5)
    await selling.grant()
    (move,) = await asked_moves(selling.shard(), MOVES_MAX)
    answers = [
        await top_up(selling.redis, selling.keys(), units=move.units, **arguments(move))
        for _ in range(2)
    ]
    assert [answer.code for answer in answers] == [MoveCode.DONE, MoveCode.ALREADY]

    assert await selling.move() == 1
    assert await selling.remaining() == 12
    assert await states(selling) == [("top_up", "superseded"), ("top_up", "done")]
    assert await selling.at_rest() == ""


async def test_a_return_is_applied_once_even_if_nobody_noted_it(selling):
    await expire(selling, "ann")
    (move,) = await asked_moves(selling.shard(), MOVES_MAX)
    await return_units(selling.redis, selling.keys(), shopper="ann", units=2, **arguments(move))
    assert await selling.remaining() == 9

    assert await selling.move() == 1
    assert await selling.remaining() == 9
    assert await selling.at_rest() == ""
    replay = await selling.click("ann", 2, key="k-ann")
    assert isinstance(replay, Accepted)
    assert replay.is_replay
    await selling.buy("ann", 2)


async def test_marking_a_move_done_again_changes_nothing(selling):
    await expire(selling, "ann")
    (move,) = await asked_moves(selling.shard(), MOVES_MAX)
    await selling.move()
    for _ in range(2):
        await mark_done(selling.shard(), [move.id])
        await supersede_moves(selling.shard())

    assert ("return", "done") in await states(selling)


async def test_a_withdrawal_goes_through_every_step_once(selling):
    """Each step twice, as after a crash behind it."""
    shard, number = selling.shard(), selling.sale.number
    home = selling.shards.home(number)
    for _ in range(2):
        await ask_withdrawal(shard, number, 0, epoch=1, units=100)
    (move,) = await asked_moves(shard, MOVES_MAX)
    assert await selling.broken() == ""

    for _ in range(2):
        taken = await withdraw_units(
            selling.redis, selling.keys(), units_wanted=move.units, **arguments(move)
        )
        assert taken.units == 7
        assert await selling.broken() == ""
    for _ in range(2):
        await debit_withdrawal(shard, move.id, taken.units)
        assert (await selling.lease()).granted == 3
        assert await selling.broken() == ""
    (debited,) = await debited_moves(shard, MOVES_MAX)
    assert debited.units == 7
    assert await selling.pool() == 0

    await selling.new_mover(shard).move_once()
    await mark_credited(home, [move.id])
    assert await selling.move() == 0
    assert (await selling.pool(), await selling.remaining()) == (7, 0)
    assert await selling.at_rest() == ""


async def test_a_debit_that_is_made_twice_at_once_takes_the_units_once(selling):
    """Two movers, each with the same answer of the script; both wait for the lease row."""
    shard, number = selling.shard(), selling.sale.number
    await ask_withdrawal(shard, number, 0, epoch=1, units=2)
    (move,) = await asked_moves(shard, MOVES_MAX)
    taken = await withdraw_units(selling.redis, selling.keys(), units_wanted=2, **arguments(move))
    async with session(shard.url) as other, other.transaction():
        await other.execute("SELECT 1 FROM bucket_leases FOR UPDATE")
        debits = [
            asyncio.create_task(debit_withdrawal(shard, move.id, taken.units)) for _ in range(2)
        ]
        await eventually(lambda: waiting_for_locks(selling, len(debits)))
    await asyncio.gather(*debits)

    assert (await selling.lease()).granted == 8
    assert await selling.at_rest() == ""
    assert (await selling.pool(), await selling.remaining()) == (2, 5)


async def waiting_for_locks(shop, count):
    """Say whether so many sessions of this database wait for another one's transaction."""
    return count == await shop.value(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


async def test_a_withdrawal_that_finds_nothing_is_done_with_nothing(selling):
    for shopper in ("cat", "dan", "eve"):
        await selling.buy(shopper, 2)
    await selling.buy("fay")
    await selling.flush()
    await ask_withdrawal(selling.shard(), selling.sale.number, 0, epoch=1, units=5)
    await selling.move()

    assert (await states(selling))[-1] == ("withdrawal", "done")
    assert await selling.at_rest() == ""


async def test_units_withdrawn_before_a_new_epoch_are_not_lost(selling):
    """Taken out of Redis, not yet debited: the rebuild hands them out again."""
    await ask_withdrawal(selling.shard(), selling.sale.number, 0, epoch=1, units=5)
    (move,) = await asked_moves(selling.shard(), MOVES_MAX)
    taken = await withdraw_units(selling.redis, selling.keys(), units_wanted=5, **arguments(move))
    await selling.recover()
    await debit_withdrawal(selling.shard(), move.id, taken.units)
    await selling.move()

    assert await selling.remaining() == 7
    assert (await states(selling))[-1] == ("withdrawal", "superseded")
    assert await selling.at_rest() == ""


async def test_a_move_waits_while_its_bucket_drains_and_is_superseded_by_the_next_epoch(selling):
    await expire(selling, "ann")
    await selling.execute("UPDATE bucket_leases SET state = 'draining'")
    assert await selling.move() == 0
    assert (await states(selling))[-1] == ("return", "asked")

    await selling.recover()
    assert await selling.move() == 0
    assert (await states(selling))[-1] == ("return", "superseded")
    assert await selling.remaining() == 9
    assert await selling.at_rest() == ""


async def test_a_move_whose_state_is_gone_waits_for_the_epoch(selling):
    await expire(selling, "ann")
    await selling.redis.delete(selling.keys().state)
    assert await selling.move() == 0
    assert (await states(selling))[-1] == ("return", "asked")

    await selling.recover()
    await selling.move()
    assert await selling.remaining() == 9


async def test_the_return_of_a_key_that_was_taken_hands_the_key_to_its_owner(selling):
    """Redis forgot ann's key in a loss; the same click made a second order there."""
    await selling.redis.delete(selling.keys().replays)
    await selling.redis.hset(selling.keys().shoppers, "ann", 0)
    second = await selling.buy("ann", 2, key="k-ann")
    assert second.seq == 2
    await selling.flush()
    letters = await selling.rows("SELECT seq, reason FROM dead_letters")
    assert [tuple(letter.values()) for letter in letters] == [(2, "key_taken")]

    await selling.redis.hset(selling.keys().shoppers, "ann", 4)
    assert await selling.move() == 1
    owner = await selling.click("ann", 2, key="k-ann")
    assert (owner.is_replay, owner.key.seq) == (True, 0)
    assert await selling.remaining() == 7


async def test_a_home_shard_that_is_away_holds_up_its_own_credits_alone(shop, shard_urls):
    """One shard has a bucket of each of two sales; only one of them is at home elsewhere."""
    await shop.open(stock=40, buckets=2)
    away_sale = shop.sale
    beside = away_sale.number + 1  # at home where the first one has its second bucket
    await shop.open(id="summer", stock=10)
    assert (shop.sale.number, shop.shard()) == (beside, shop.shards.of(away_sale.number, 1))
    shard, home_away = shop.shard(), shop.shards.home(away_sale.number)
    await ask_withdrawal(shard, away_sale.number, 1, epoch=1, units=5)
    await ask_withdrawal(shard, beside, 0, epoch=1, units=3)

    impatient = Shards(shard_urls, DatabaseSettings(lock_timeout_ms=100, statement_timeout_ms=500))
    await impatient.read_map()
    duties = shop.duties[shard.index]
    mover = Mover(
        impatient.all[shard.index],
        impatient,
        duties,
        shop.redis,
        shop.deployment,
        MoverSettings(),
    )

    async def pass_by():
        with contextlib.suppress(ShardUnavailable):  # as the loop of a worker does
            await mover.move_once()

    async def the_first_waits():
        await pass_by()
        debited = await debited_moves(shard, MOVES_MAX)
        return [(move.sale, move.units) for move in debited] == [(away_sale.number, 5)]

    async def all_is_done_beside():
        await pass_by()
        return (await shop.pool(), await shop.remaining()) == (0, 14)

    async with session(home_away.url) as frozen, frozen.transaction():
        await frozen.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        await eventually(the_first_waits)
        await shop.restock(4)
        await Grants(shard, shop.shards).lease_and_grant()
        await eventually(all_is_done_beside)
        with pytest.raises(ShardUnavailable):
            await mover.move_once()  # and says so
        assert await the_first_waits()
    await impatient.close()

    assert await shop.move() == 1
    (sale,) = await read_sales(home_away, [away_sale.number])
    assert sale.pool == 5
    assert await shop.at_rest() == ""


async def test_only_the_process_with_the_duty_moves(selling):
    await expire(selling, "ann")
    index = selling.shard().index
    async with await selling.shard().lock_session() as other:
        await selling.duties[index].close()
        assert await other.try_lock(LockPurpose.MOVE)
        assert await selling.new_mover(selling.shard()).move_once() == 0

    assert await eventually(selling.new_mover(selling.shard()).move_once) == 1


async def test_hundreds_of_moves_are_applied_side_by_side(shop):
    await shop.open(stock=200, limit_per_shopper=1)
    shoppers = [f"s{i}" for i in range(100)]
    await asyncio.gather(*map(shop.buy, shoppers))
    await shop.flush()
    await shop.execute(
        "UPDATE orders SET pay_by = now() - interval '1 s', "
        "placed_at = placed_at - interval '1 minute'"
    )
    await shop.close_orders()
    assert await shop.move() == 100

    assert await shop.remaining() == 200
    assert await shop.at_rest() == ""
