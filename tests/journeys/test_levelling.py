"""A sale in four buckets: shoppers who all lead to one of them buy what the others hold."""

import itertools
from collections.abc import Iterator

from app.orders.placement import bucket_of
from tests.waiting import eventually

STOCK = 40
BUCKETS = 4
SOLD_SECONDS = 60.0  # each levelling takes a pass of the coordinator and two of the mover


def shoppers_of(bucket: int) -> Iterator[str]:
    names = (f"s{number}" for number in itertools.count())
    return (name for name in names if bucket_of(name, BUCKETS) == bucket)


async def test_the_last_units_of_a_sale_in_four_buckets_are_sold(shop, promises):
    sale = await shop.open_sale(stock=STOCK, buckets=BUCKETS)
    names = [shoppers_of(bucket) for bucket in range(BUCKETS)]
    sold = [0] * BUCKETS

    async def click(bucket: int) -> None:
        answer = await shop.place(sale, next(names[bucket]))
        sold[bucket] += answer.status == 202

    async def one_bucket_has_drawn_all_but_the_last_of_each() -> bool:
        await click(2)
        return sold[2] == STOCK - (BUCKETS - 1)

    async def all_is_sold() -> bool:
        for bucket in range(BUCKETS):
            await click(bucket)
        return sum(sold) == STOCK

    await eventually(one_bucket_has_drawn_all_but_the_last_of_each, within_seconds=SOLD_SECONDS)
    await eventually(all_is_sold, within_seconds=SOLD_SECONDS)
    assert sold == [1, 1, STOCK - 3, 1]
    await shop.until_stock(sale, reserved=STOCK, remaining=0, unflushed=0, pool=0)
    for bucket in range(BUCKETS):
        assert (await shop.place(sale, next(names[bucket]))).code == "sold_out"
    await promises.hold()
