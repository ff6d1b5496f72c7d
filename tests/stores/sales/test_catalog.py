"""The catalog: a sale that is known is served, whatever its shard does."""

import asyncio

import pytest

from app.kernel.errors import ShardUnavailable
from app.sales.catalog import Catalog
from app.sales.sale import SaleEvent, SaleState
from app.sales.store import Act, change_state, create_sale
from app.storage.shards import DatabaseSettings, Shards
from tests.real_stores import session
from tests.waiting import eventually

ACT = Act("test", None)


@pytest.fixture
async def sale(shards, terms):
    made = await create_sale(shards, terms, idempotency_key="k1", fingerprint=b"f", act=ACT)
    return made.sale


@pytest.fixture
async def catalog(shards):
    opened = Catalog(shards)
    yield opened
    await opened.close()


async def test_a_sale_is_found_by_id_and_by_number(catalog, sale):
    assert await catalog.find("spring") == sale
    assert await catalog.by_number(sale.number) == sale


async def test_a_number_leads_to_the_id_without_the_directory(shards, sale):
    fresh = Catalog(shards)
    assert await fresh.by_number(sale.number) == sale
    assert await fresh.find("spring") == sale
    await fresh.close()


async def test_a_crowd_that_meets_a_sale_for_the_first_time_shares_one_look(shards, sale):
    looks = []
    shards.directory.observe_wait = looks.append
    catalog = Catalog(shards)
    hasty = asyncio.create_task(catalog.find("spring"))
    crowd = [asyncio.create_task(catalog.find("spring")) for _ in range(200)]
    await asyncio.sleep(0)
    hasty.cancel()  # and takes the answer from nobody

    assert await asyncio.gather(*crowd) == [sale] * 200
    assert len(looks) == 1
    assert await asyncio.gather(*(catalog.find("nothing") for _ in range(200))) == [None] * 200
    assert len(looks) == 2
    await catalog.close()


async def test_a_look_that_was_under_way_when_a_sale_changed_is_not_remembered(
    catalog, shards, sale
):
    asked = asyncio.create_task(catalog.find("spring"))
    await asyncio.sleep(0)
    catalog.forget("spring")
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)
    await asked

    assert (await catalog.find("spring")).state is SaleState.PUBLISHED


async def test_what_is_not_there_is_none(catalog):
    assert await catalog.find("nothing") is None
    assert await catalog.by_number(77) is None


async def test_a_change_is_seen_soon_and_by_itself(catalog, shards, sale):
    assert (await catalog.find("spring")).state is SaleState.DRAFT
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)

    async def is_published():
        return (await catalog.find("spring")).state is SaleState.PUBLISHED

    await eventually(is_published)


async def test_a_change_made_here_is_seen_at_once(catalog, shards, sale):
    await catalog.find("spring")
    await change_state(shards, sale.number, SaleEvent.PUBLISH, ACT)
    catalog.forget("spring")
    catalog.forget("never heard of")

    assert (await catalog.find("spring")).state is SaleState.PUBLISHED
    assert (await catalog.by_number(sale.number)).state is SaleState.PUBLISHED


async def test_a_name_that_was_unknown_is_found_once_it_is_there(catalog, shards, terms):
    assert await catalog.find("spring") is None
    await create_sale(shards, terms, idempotency_key="k1", fingerprint=b"f", act=ACT)

    assert (await eventually(lambda: catalog.find("spring"))).id == "spring"


async def test_a_known_sale_is_served_while_its_shard_is_away_and_an_unknown_one_is_not(
    shard_urls, sale
):
    impatient = Shards(shard_urls, DatabaseSettings(lock_timeout_ms=50, statement_timeout_ms=200))
    await impatient.read_map()
    catalog = Catalog(impatient)
    assert await catalog.find("spring") == sale
    async with session(impatient.home(sale.number).url) as other, other.transaction():
        await other.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        known = catalog._by_id["spring"]  # noqa: SLF001  to see that it was refreshed
        first_read = known.read_at

        async def was_refreshed():
            assert await catalog.find("spring") == sale
            return known.read_at > first_read

        await eventually(was_refreshed)
        assert await catalog.by_number(sale.number) == sale
        with pytest.raises(ShardUnavailable):
            await Catalog(impatient).find("spring")
    await catalog.close()
    await impatient.close()
