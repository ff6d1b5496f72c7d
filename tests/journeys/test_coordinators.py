"""Two coordinators by mistake: the second waits, takes over, and meets the first again."""

from collections import Counter

from tests.journeys.service import frozen, role_beside
from tests.waiting import eventually

FREE_PORT = "0"  # no metrics listener


async def open_on_both_shards(shop):
    """Open sales until both shards have one; only a shard's leader can open its buckets."""
    sales = {}
    while len(sales) < 2:
        sale = await shop.open_sale(stock=100)
        sales[(await shop.queue(sale))["shard"]] = sale
    return list(sales.values())


def epochs_opened(service):
    """Count how often each epoch of a bucket was opened, by whichever coordinator."""
    events = service.log_of("coordinator") + service.log_of("coordinator-beside")
    opened = (one for one in events if one["event"] == "epoch_opened")
    return Counter((one["sale"], one["bucket"], one["epoch"]) for one in opened)


async def test_a_second_coordinator_takes_over_and_the_first_wakes_up_to_no_harm(
    shop, service, promises
):
    sales = await open_on_both_shards(shop)
    first = service.pids("coordinator")[0]
    settings = {"DOORBUSTER_PROCESS__METRICS_PORT": FREE_PORT}
    with role_beside(service, "coordinator", **settings) as second:
        with frozen(first):
            sales += await open_on_both_shards(shop)  # the second leads both shards
            for sale in sales:
                assert (await shop.insist(sale, "ann")).status == 202
        # The first is awake again, and believes for a moment that it leads.
        for sale in sales:
            assert (await shop.insist(sale, "bob")).status == 202
        epochs = {sale: (await shop.queue(sale))["epoch"] for sale in sales}
        with frozen(second):
            sales += await open_on_both_shards(shop)  # the first has queued up again
            for sale in sales:
                assert (await shop.insist(sale, "cat")).status == 202
        for sale in sales:
            assert (await shop.insist(sale, "dan")).status == 202

    async def one_leads_and_all_sell() -> bool:
        return all([(await shop.queue(sale))["state"] == "open" for sale in sales])

    await eventually(one_leads_and_all_sell)
    opened = epochs_opened(service)
    assert {sale for sale, _, _ in opened} >= set(sales)
    assert set(opened.values()) == {1}, "no epoch is ever opened by two"
    for sale, epoch in epochs.items():
        assert (await shop.queue(sale))["epoch"] >= epoch
    await promises.hold()
