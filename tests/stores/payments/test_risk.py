"""Payments refused, held, released and blocked, over HTTP, on real rows."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from app.kernel.ids import OrderKey
from app.payments.risk.routes import DEVICE_HEADER
from app.payments.risk.routes import admin_endpoints as risk_endpoints
from app.payments.routes import endpoints
from app.payments.settings import RiskSettings
from app.payments.stage import PaymentStage
from app.payments.start import Started, StartRefusal, start_payment
from app.telemetry.requests import RequestTally
from app.web.access import Operator
from app.web.application import build_application
from app.web.settings import WebSettings
from tests.stores.payments.desk import PRICE_MINOR, Desk, ShopperByHeader

BODY = {"provider": "sandbox", "product": "qr"}


class EverybodyByHeader(ShopperByHeader):
    """Takes the operator's word for it, too."""

    def operator(self, headers: Mapping[str, str]) -> Operator | None:
        name = headers.get("Operator")
        return None if name is None else Operator(name, "operator")


def strict(desk: Desk, **limits: int) -> PaymentStage:
    settings = replace(desk.stage.settings, risk=RiskSettings(**limits))
    return replace(desk.stage, settings=settings)


@contextlib.asynccontextmanager
async def serving(stage: PaymentStage) -> AsyncIterator[str]:
    """Serve the routes of shoppers and of operators at one address."""
    app = build_application(
        [*endpoints(stage), *risk_endpoints(stage)],
        settings=WebSettings(),
        authenticator=EverybodyByHeader(),
        tally=RequestTally(),
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        try:
            await web.SockSite(runner, listening).start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await runner.cleanup()


class Till:
    """One shopper and one operator before the routes."""

    def __init__(self, desk: Desk, url: str) -> None:
        self._desk = desk
        self._url = url

    async def pay(self, key: OrderKey, name: str = "one", **headers: str) -> tuple[int, str]:
        url = f"{self._url}/v1/orders/{self._desk.order_id(key)}/payments"
        sent = {"Shopper": "ann", "Idempotency-Key": f"payment-key-of-{name}", **headers}
        async with self._desk.client.post(url, json=BODY, headers=sent) as response:
            return response.status, (await response.json()).get("code", "")

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        url, sent = f"{self._url}/admin/v1{path}", {"Operator": "olga"}
        async with self._desk.client.request(method, url, json=body, headers=sent) as response:
            return response.status, await response.json() if response.status != 204 else None

    async def order(self, key: OrderKey, act: str = "") -> tuple[int, Any]:
        path = f"/orders/{self._desk.order_id(key)}/risk{act}"
        return await self.ask("POST" if act else "GET", path, {"reason": "Looked"} if act else None)


async def test_an_amount_over_the_limit_is_refused_and_the_operator_reads_why(desk: Desk):
    key = await desk.place()
    async with serving(strict(desk, amount_minor_max=PRICE_MINOR - 1)) as url:
        counter = Till(desk, url)
        assert [await counter.pay(key), await counter.pay(key, "two")] == [
            (403, "payment_refused")
        ] * 2
        status, told = await counter.order(key)
    assert (status, told["hold"]) == (200, None)
    (refusal,) = told["refusals"]
    assert (refusal["rule"], refusal["tries"]) == ("amount_over_limit", 2)
    assert await desk.rows("SELECT 1 FROM payment_attempts") == []


async def test_a_held_payment_is_opened_once_it_is_released(desk: Desk):
    key = await desk.place()
    async with serving(strict(desk, hold_from_minor=PRICE_MINOR)) as url:
        counter = Till(desk, url)
        assert (await counter.order(key, "/release"))[1]["code"] == "payment_not_held"
        assert await counter.pay(key) == (409, "payment_held")
        assert await counter.pay(key) == (409, "payment_held")
        assert await desk.rows("SELECT 1 FROM payment_attempts") == []
        status, waiting = await counter.ask("GET", "/risk/holds")
        (item,) = waiting["items"]
        assert (status, item["rule"]) == (200, "amount_for_review")
        assert item["order_id"] == desk.order_id(key)

        released = [await counter.order(key, "/release") for _ in range(2)]
        assert [status for status, _ in released] == [200, 200]
        assert (await counter.order(key, "/reject"))[1]["code"] == "payment_not_held"
        assert await counter.pay(key) == (201, "")
        assert (await counter.ask("GET", "/risk/holds"))[1]["items"] == []
    hold = released[1][1]["hold"]
    assert (hold["state"], hold["decided_by"], hold["decided_why"]) == (
        "released", "olga", "Looked",
    )  # fmt: skip
    acts = await desk.rows("SELECT actor, act, reason FROM audit_rows")
    assert [tuple(row.values()) for row in acts] == [("olga", "payment released", "Looked")]


async def test_a_rejected_payment_is_refused_for_good(desk: Desk):
    key = await desk.place()
    async with serving(strict(desk, hold_from_minor=1)) as url:
        counter = Till(desk, url)
        assert await counter.pay(key) == (409, "payment_held")
        assert (await counter.order(key, "/reject"))[0] == 200
        assert await counter.pay(key) == (403, "payment_refused")
        _, told = await counter.order(key)
    assert [refusal["rule"] for refusal in told["refusals"]] == ["rejected_by_operator"]


@pytest.mark.parametrize(
    ("kind", "value"), [("shopper", "ann"), ("device", "phone-7"), ("address", "127.0.0.1")]
)
async def test_who_is_blocked_cannot_pay_until_unblocked(desk: Desk, kind: str, value: str):
    key = await desk.place()
    block = {"kind": kind, "value": value, "reason": "Chargebacks"}
    async with serving(desk.stage) as url:
        counter = Till(desk, url)
        _, watched = await counter.ask("POST", "/risk/blocks", {**block, "effect": "hold"})
        assert await counter.pay(key, **{DEVICE_HEADER: "phone-7"}) == (409, "payment_held")
        status, blocked = await counter.ask("POST", "/risk/blocks", block)
        assert (status, blocked["block_id"]) == (200, watched["block_id"])
        assert await counter.pay(key, **{DEVICE_HEADER: "phone-7"}) == (403, "payment_refused")
        _, listed = await counter.ask("GET", "/risk/blocks")
        assert listed["items"] == [blocked]

        path = f"/risk/blocks/{blocked['block_id']}/remove"
        removed = [await counter.ask("POST", path, {"reason": "Settled"}) for _ in range(2)]
        assert [status for status, _ in removed] == [204, 404]
        fresh = await desk.place()
        assert await counter.pay(fresh, **{DEVICE_HEADER: "phone-7"}) == (201, "")
        _, told = await counter.order(key)
    assert [refusal["rule"] for refusal in told["refusals"]] == [f"{kind}_blocked"]
    async with desk.stage.shards.directory.connection() as connection:
        acts = await connection.fetch("SELECT act FROM audit_rows ORDER BY id")
    assert [row["act"] for row in acts] == ["subject blocked"] * 2 + ["subject unblocked"]
    await nothing_in_clear(desk, "ann", "phone-7", "127.0.0.1")


async def nothing_in_clear(desk: Desk, *words: str) -> None:
    """Look for what identifies somebody in every row that risk writes."""
    for table in ("risk_starts", "risk_blocks", "risk_holds", "risk_refusals", "audit_rows"):
        told = f"SELECT {table}::text AS told FROM {table}"  # noqa: S608  our own names
        for row in await desk.rows(told):
            assert not any(word in row["told"] for word in words), table


@pytest.mark.parametrize("kind", ["shopper", "device", "address"])
async def test_twenty_starts_at_once_never_exceed_a_limit(desk: Desk, kind: str):
    keys = [await desk.place() for _ in range(20)]
    async with serving(strict(desk, **{f"per_{kind}_max": 3})) as url:
        counter = Till(desk, url)
        answers = await asyncio.gather(
            *(counter.pay(key, **{DEVICE_HEADER: "phone-7"}) for key in keys)
        )
        assert Counter(answers) == {(201, ""): 3, (403, "payment_refused"): 17}
        opened = keys[answers.index((201, ""))]
        assert await counter.pay(opened, **{DEVICE_HEADER: "phone-7"}) == (201, "")  # a replay
        _, told = await counter.order(keys[answers.index((403, "payment_refused"))])
    assert [refusal["rule"] for refusal in told["refusals"]] == [f"{kind}_too_often"]
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 3
    await nothing_in_clear(desk, "ann", "phone-7", "127.0.0.1")


async def test_old_starts_do_not_count_and_are_deleted(desk: Desk):
    stage = strict(desk, per_shopper_max=1, window_seconds=60)
    first = await start_payment(stage, desk.wish(await desk.place()))
    second = await start_payment(stage, desk.wish(await desk.place()))
    desk.clock.advance(60_000)
    third = await start_payment(stage, desk.wish(await desk.place()))
    assert isinstance(first, Started)
    assert second is StartRefusal.PAYMENT_REFUSED
    assert isinstance(third, Started)
    kept = 0
    for shard in stage.shards.all:
        async with shard.connection() as connection:
            kept += await connection.fetchval("SELECT count(*) FROM risk_starts")
    assert kept == 1


async def test_a_device_that_is_no_name_is_named_and_nothing_is_written(desk: Desk):
    key = await desk.place()
    async with serving(strict(desk, per_device_max=1)) as url:
        counter = Till(desk, url)
        for wrong in ("", "x" * 129, "two words"):
            assert await counter.pay(key, **{DEVICE_HEADER: wrong}) == (422, "validation_failed")
    assert await desk.rows("SELECT 1 FROM risk_starts") == []


async def test_the_rows_refuse_what_the_rules_never_write(desk: Desk):
    key = await desk.place()
    hold = "INSERT INTO risk_holds (sale, bucket, epoch, seq, state, rule, held_at)"
    for statement in (
        "INSERT INTO risk_starts VALUES ('shopper', 'short', 'short', now())",
        "INSERT INTO risk_blocks VALUES ('shopper', 'short', 'refuse', 'r', 'olga', now())",
        f"{hold} VALUES ({', '.join(map(str, key))}, 'released', 'r', now())",
        f"{hold} VALUES (1, 0, 1, 9999, 'held', 'r', now())",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await desk.execute(statement)
