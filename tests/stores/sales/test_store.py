"""Sales in Postgres: named once, changed as their table allows, restocked once per key."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from app.kernel.errors import IdempotencyMismatch, ShardUnavailable
from app.sales.sale import ALREADY_DONE, SALE_MACHINE, SaleEvent, SaleState
from app.sales.store import (
    Act,
    add_stock,
    change_state,
    create_sale,
    find_sale,
    list_sales,
    read_sales,
)

ACT = Act("ann@ops", "because")


async def create(shards, terms, key="k1", fingerprint=b"f"):
    return await create_sale(shards, terms, idempotency_key=key, fingerprint=fingerprint, act=ACT)


async def audit_rows(shards, number):
    async with shards.home(number).connection() as connection:
        rows = await connection.fetch("SELECT actor, act, reason FROM audit_rows ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.fixture
async def sale(shards, terms):
    return (await create(shards, terms)).sale


async def restock(shards, sale, units, key="r1"):
    return await add_stock(shards, sale.number, units, idempotency_key=key, act=ACT)


async def test_a_sale_is_created_as_a_draft_with_its_terms(shards, terms):
    made = await create(shards, terms)

    assert made.is_new
    sale = made.sale
    assert (sale.state, sale.stock_total, sale.pool) == (SaleState.DRAFT, 100, 100)
    told = {name: getattr(terms, name) for name in terms.__slots__ if name != "stock"}
    assert {name: getattr(sale, name) for name in told} == told
    assert await find_sale(shards, "spring") == sale
    assert await audit_rows(shards, sale.number) == [("ann@ops", "sale created", "because")]


async def test_the_same_key_makes_one_sale(shards, terms):
    made = await asyncio.gather(*(create(shards, terms) for _ in range(5)))

    assert sorted(one.is_new for one in made) == [False] * 4 + [True]
    assert len({one.sale.number for one in made}) == 1


async def test_the_same_key_for_another_sale_is_refused(shards, terms):
    await create(shards, terms)
    with pytest.raises(IdempotencyMismatch):
        await create(shards, replace(terms, id="autumn"), fingerprint=b"g")


async def test_an_id_is_taken_once(shards, terms):
    made = await asyncio.gather(*(create(shards, terms, key=f"k{i}") for i in range(5)))

    assert sum(one is not None for one in made) == 1


async def test_a_crash_between_the_name_and_the_row_is_finished_by_the_same_key(shards, terms):
    made = await create(shards, terms)
    number = made.sale.number
    async with shards.home(number).connection() as connection:
        await connection.execute("DELETE FROM sales")
    with pytest.raises(ShardUnavailable):
        await change_state(shards, number, SaleEvent.PUBLISH, ACT)
    assert await find_sale(shards, "spring") is None

    again = await create(shards, terms)
    assert (again.sale.number, again.is_new) == (number, False)
    assert await find_sale(shards, "spring") == again.sale


async def test_what_is_not_there_is_not_found(shards):
    assert await find_sale(shards, "nothing") is None
    assert await read_sales(shards.all[0], [77]) == []


async def test_sales_are_listed_newest_first_over_all_shards(shards, terms):
    ids = [f"sale-{i}" for i in range(5)]
    for name in ids:
        await create(shards, replace(terms, id=name), key=name)
    found = await list_sales(shards, None, 3)
    assert [sale.id for sale in found] == ["sale-4", "sale-3", "sale-2"]
    rest = await list_sales(shards, found[-1].number, 3)
    assert [sale.id for sale in rest] == ["sale-1", "sale-0"]


# The states.


def path_to(state):
    """Events that lead a new sale to a state."""
    return {
        SaleState.DRAFT: [],
        SaleState.PUBLISHED: [SaleEvent.PUBLISH],
        SaleState.PAUSED: [SaleEvent.PUBLISH, SaleEvent.PAUSE],
        SaleState.CLOSED: [SaleEvent.PUBLISH, SaleEvent.CLOSE],
    }[state]


async def test_each_event_does_to_a_row_what_the_table_says(shards, terms, subtests):
    numbers = itertools.count()
    for state, event in itertools.product(SaleState, SaleEvent):
        with subtests.test(f"{state} {event}"):
            name = f"sale-{next(numbers)}"
            sale = (await create(shards, replace(terms, id=name), key=name)).sale
            for step in path_to(state):
                await change_state(shards, sale.number, step, ACT)
            changed = await change_state(shards, sale.number, event, ACT)
            target = SALE_MACHINE.moves.get((state, event))
            if target is not None:
                assert (changed.sale.state, changed.is_new) == (target, True)
            elif state in ALREADY_DONE[event]:
                assert (changed.sale.state, changed.is_new) == (state, False)
            else:
                assert changed is None


async def test_repeating_a_change_writes_no_second_audit_row(shards, sale):
    for _ in range(3):
        await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)

    acts = [act for _, act, _ in await audit_rows(shards, sale.number)]
    assert acts == ["sale created", "sale publish"]


async def test_the_instants_of_publishing_and_closing_stay(shards, sale):
    first = (await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)).sale
    await change_state(shards, sale.number, SaleEvent.PAUSE, ACT)
    resumed = (await change_state(shards, sale.number, SaleEvent.RESUME, ACT)).sale
    closed = (await change_state(shards, sale.number, SaleEvent.CLOSE, ACT)).sale

    assert first.published_at == resumed.published_at == closed.published_at
    assert (resumed.closed_at, closed.state_reason) == (None, "because")
    assert closed.ends_at == closed.closed_at


async def test_a_sale_whose_window_is_over_cannot_be_published(shards, terms):
    past = replace(
        terms,
        opens_at=terms.opens_at.replace(year=2020),
        closes_at=terms.closes_at.replace(year=2020),
    )
    sale = (await create(shards, past)).sale

    assert await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT) is None


async def test_publish_and_close_at_once_have_an_order(shards, sale):
    await asyncio.gather(
        change_state(shards, sale.number, SaleEvent.PUBLISH, ACT),
        change_state(shards, sale.number, SaleEvent.CLOSE, ACT),
    )
    (after,) = await read_sales(shards.home(sale.number), [sale.number])
    assert after.state is SaleState.CLOSED


# Restocking.


async def test_stock_is_added_once_for_each_key(shards, sale):
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)
    added = await asyncio.gather(*(restock(shards, sale, 5) for _ in range(6)))
    await restock(shards, sale, 7, key="r2")

    assert sorted(one.is_new for one in added) == [False] * 5 + [True]
    (after,) = await read_sales(shards.home(sale.number), [sale.number])
    assert (after.stock_total, after.pool) == (112, 112)


async def test_the_same_key_for_another_number_of_units_is_refused(shards, sale):
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)
    await restock(shards, sale, 5)
    with pytest.raises(IdempotencyMismatch):
        await restock(shards, sale, 6)


async def test_stock_is_added_only_to_a_sale_that_runs(shards, sale):
    assert await restock(shards, sale, 5) is None
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)
    assert await restock(shards, sale, 10_000_000) is None
    await change_state(shards, sale.number, SaleEvent.CLOSE, ACT)
    assert await restock(shards, sale, 5, key="r3") is None
