"""Planted names and phones are found nowhere, and keys are replaced while shoppers go on."""

import asyncio
import contextlib
import functools
import itertools
import json
import os
import secrets
from typing import NamedTuple

import aiohttp
import pytest
from redis.asyncio import Redis

from app.embedded.ports import LOCALHOST, free_port
from app.embedded.probes import answers_ready
from tests.journeys.service import role_beside
from tests.journeys.shop import names
from tests.journeys.test_fulfilment import Orders
from tests.real_stores import session
from tests.waiting import eventually

LIST_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
WITHOUT_METRICS = {"DOORBUSTER_PROCESS__METRICS_PORT": "0"}
COUNT_OTHERS = """
SELECT count(*) FROM (SELECT sale, key_id FROM order_deliveries
                      UNION ALL SELECT sale, key_id FROM order_invoices) sealed
WHERE ($1::text IS NULL OR sale = (SELECT sale FROM bucket_leases WHERE sale_id = $1))
  AND key_id <> $2"""


def planted():
    """Details that no other test has, so that each trace of them is ours."""
    tail = "".join(secrets.choice("0123456789") for _ in range(8))
    return {
        "receiver": f"Planted {secrets.token_hex(6)}",
        "mobile": f"139{tail}",
        "address": f"{secrets.token_hex(6)} Planted Street 7",
    }


def traces(details, text):
    """Say which of the details a text holds, in any of the ways they are written."""
    words = [
        details["receiver"],
        details["receiver"].split()[1],
        details["mobile"],
        details["address"],
        details["address"].split()[0],
    ]
    return [word for word in words if word.encode() in text]


async def everything_in_redis(url):
    redis = Redis.from_url(url)
    found = [name async for name in redis.scan_iter(count=1_000)]
    dumps = [await redis.dump(name) or b"" for name in found]
    await redis.aclose()
    return b"".join([*found, *dumps])


async def everything_in_postgres(urls):
    text = []
    for url in urls:
        async with session(url) as connection:
            for row in await connection.fetch(LIST_TABLES):
                rows = await connection.fetch(f"SELECT t::text FROM {row[0]} t")  # noqa: S608
                text += [one[0].encode() for one in rows]
                binary = await connection.fetch(f"SELECT to_jsonb(t)::text FROM {row[0]} t")  # noqa: S608
                text += [one[0].encode() for one in binary]
    return b"\n".join(text)


@pytest.fixture
async def orders(shop):
    return Orders(shop, await shop.open_sale(limit_per_shopper=99, stock=99))


async def test_planted_details_are_nowhere_in_clear(orders, shop, service):
    details = planted()
    order_id = await orders.buy()
    assert (await orders.act(order_id, "delivery", details, method="PUT")).status == 200
    wish = {"title": details["receiver"]}
    assert (await orders.act(order_id, "invoice-wish", wish, method="PUT")).status == 200
    seen = []
    # Refusals of every kind that such details can cause.
    for wrong in (
        {**details, "receiver": details["receiver"] + "\x07"},
        {**details, "mobile": details["mobile"] + "x"},
        {**details, "address": details["address"] * 20},
        {**details, details["receiver"]: 1},
        {**details, "address": [details["address"]]},
    ):
        answer = await orders.act(order_id, "delivery", wrong, method="PUT")
        assert answer.status == 422, answer
        if details["receiver"] not in wrong:  # a strange field is named as it was sent
            seen.append(json.dumps(answer.body))
    stranger = await orders.act(order_id, "delivery", details, "bob", method="PUT")
    assert stranger.status == 404
    await shop.pay(order_id, "ann")
    await shop.until_order(order_id, "ann", "paid")
    assert (await orders.ship(order_id)).status == 200
    locked = await orders.act(
        order_id, "delivery", {**details, "receiver": "Another"}, method="PUT"
    )
    assert locked.code == "delivery_locked"
    seen.append(json.dumps(await shop.read(f"/orders/{order_id}")))
    seen.append(json.dumps(await shop.read(f"/orders/{order_id}/fulfilment")))
    seen += [json.dumps(one.body) for one in (stranger, locked)]
    found = await shop.operate("POST", "/orders/search", {"mobile": "+86" + details["mobile"]})
    assert [one["order_id"] for one in found.body["items"]] == [order_id]
    seen.append(json.dumps(found.body))

    whole = await shop.read(f"/orders/{order_id}/delivery")
    assert whole == details, "the one view that needs them"
    run = service.run
    logs = b"".join(path.read_bytes() for path in service.data_dir.rglob("*.log"))
    err = b"".join(path.read_bytes() for path in service.data_dir.glob("*.err"))
    for where, text in {
        "views and refusals": " ".join(seen).encode(),
        "logs": logs + err,
        "redis": await everything_in_redis(run.redis),
        "postgres": await everything_in_postgres((*run.shards, run.ledger)),
        "metrics": (await shop.text_at(f"{run.admin}/metrics")).encode(),
    }.items():
        assert traces(details, text) == [], where


def rotation(old):
    """Return the new key's name, and the settings of both steps of a rotation."""
    new = {"kid": f"new-{secrets.token_hex(3)}", "key": secrets.token_urlsafe(32)}
    opens = [{**old, "use": "seal"}, {**new, "use": "open"}]
    seals = [{**new, "use": "seal"}, {**old, "use": "open"}]
    return new["kid"], json.dumps(opens), json.dumps(seals)


class Neighbour(NamedTuple):
    """One more api process, with keys of its own."""

    public: str
    admin: str


@contextlib.asynccontextmanager
async def api_with(service, keys):
    """Run one more api process beside those that run."""
    public, admin = free_port(), free_port()
    settings = {
        **WITHOUT_METRICS,
        "DOORBUSTER_PROCESS__INDEX": "0",
        "DOORBUSTER_WEB__PORT": str(public),
        "DOORBUSTER_WEB__ADMIN_PORT": str(admin),
        "DOORBUSTER_FULFILMENT__DELIVERY_KEYS": keys,
    }
    with role_beside(service, "api", **settings):
        await eventually(lambda: answers_ready(admin), within_seconds=60)
        yield Neighbour(f"http://{LOCALHOST}:{public}", f"http://{LOCALHOST}:{admin}")


class Writers:
    """Shoppers who change and read their details through every process that serves."""

    def __init__(self, shop, details):
        self._shop = shop
        self._details = details  # (order, shopper) -> what was written last
        self.bases = [shop.run.public]
        self.statuses = []
        self.is_over = False

    async def write_on(self):
        async with aiohttp.ClientSession() as client:
            while not self.is_over:
                for (order_id, shopper), base in itertools.product(self._details, self.bases[:]):
                    await self._change(client, f"{base}/v1/orders/{order_id}", order_id, shopper)

    async def _change(self, client, url, order_id, shopper):
        headers = {"Authorization": f"Bearer {self._shop.token(shopper)}"}
        details = planted()
        async with client.put(f"{url}/delivery", json=details, headers=headers) as answer:
            self.statuses.append(answer.status)
        self._details[order_id, shopper] = details
        async with client.get(url, headers=headers) as answer:
            self.statuses.append(answer.status)

    async def until_more(self, answers):
        """Wait for so many more answers."""
        enough = len(self.statuses) + answers
        await eventually(lambda: len(self.statuses) >= enough, within_seconds=30)


async def test_a_key_is_replaced_while_shoppers_read_and_write(orders, shop, service):
    old = json.loads(service.environment_of("api")["DOORBUSTER_FULFILMENT__DELIVERY_KEYS"])[0]
    kid, opens, seals = rotation(old)
    details = {}
    for shopper in names("keep", 4):
        details[await orders.buy(shopper), shopper] = None
    writers = Writers(shop, details)
    writing = asyncio.create_task(writers.write_on())
    try:
        await writers.until_more(16)
        async with api_with(service, opens) as first:  # can open what nobody seals yet
            writers.bases.append(first.public)
            await writers.until_more(32)
            writers.bases.remove(shop.run.public)  # knows the old key alone
            await writers.until_more(16)
            async with api_with(service, seals) as second:
                writers.bases.append(second.public)
                worker = {"DOORBUSTER_FULFILMENT__DELIVERY_KEYS": seals, **WITHOUT_METRICS}
                with role_beside(service, "worker", **worker):
                    await writers.until_more(64)
                    writers.bases.remove(first.public)
                    await writers.until_more(16)
                    await until_sealed_under(kid, orders.sale, service)
                    await writers.until_more(16)
                writers.is_over = True
                await writing
                assert set(writers.statuses) == {200}, "no request failed"
                for (order_id, _), told in details.items():
                    url = f"{second.admin}/admin/v1/orders/{order_id}/delivery"
                    read = await shop.ask("GET", url, token=shop.run.admin_token)
                    assert read.body == told, "and nothing was lost"
                early = {"DOORBUSTER_FULFILMENT__DELIVERY_KEYS": json.dumps([old])}
                for role in ("api", "worker"):
                    await until_refused(service, role, kid, early)
                order_id, shopper = next(iter(details))
                await look_without_the_key(shop, order_id, shopper)
        back = json.dumps([{**old, "use": "seal"}, {**json.loads(seals)[0], "use": "open"}])
        worker = {"DOORBUSTER_FULFILMENT__DELIVERY_KEYS": back, **WITHOUT_METRICS}
        with role_beside(service, "worker", **worker):
            await until_sealed_under(old["kid"], None, service)
        assert (await shop.order(order_id, shopper)).status == 200
    finally:
        writing.cancel()


async def look_without_the_key(shop, order_id, shopper):
    """Look at an order through the process that knows the old key alone: all but its details."""
    shown = await shop.order(order_id, shopper)
    assert shown.status == 200
    assert (shown.body["status"], shown.body["delivery"]) == ("pending", {"unreadable": True})
    seen = await shop.read(f"/orders/{order_id}/fulfilment")
    assert seen["order"]["delivery"] == {"unreadable": True}
    url = f"{shop.run.public}/v1/orders/{order_id}/delivery"
    changed = await shop.ask("PUT", url, body=planted(), token=shop.token(shopper))
    assert (changed.status, changed.code) == (503, "seal_key_missing")
    label = await shop.operate("GET", f"/orders/{order_id}/delivery")
    assert (label.status, label.code) == (503, "seal_key_missing")


async def until_refused(service, role, kid, settings):
    """Wait until a role has ended by itself, and look that it named the key."""
    with role_beside(service, role, **WITHOUT_METRICS, **settings) as pid:
        has_ended = functools.partial(
            os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG
        )
        await eventually(has_ended, within_seconds=30)
    log = (service.data_dir / f"{role}-beside.log").read_text()
    assert f"kids={kid}, " in log.splitlines()[-1], log[-1_000:]


async def until_sealed_under(kid, sale, service):
    async def look():
        left = 0
        for url in service.run.shards:
            async with session(url) as connection:
                left += await connection.fetchval(COUNT_OTHERS, sale, kid)
        return left == 0

    await eventually(look, within_seconds=30)
