"""The sandbox provider against its gateway: every outcome of a call, every way to play."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import aiohttp
import msgspec
import pytest
from aiohttp import web

from app.kernel.clock import instant
from app.payments.provider import (
    AttemptReference,
    ChargeRequest,
    Outcome,
    PayState,
    Product,
    RefundRequest,
    RefundStatus,
    Result,
)
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.providers.sandbox_wire import Keys, Purpose, Signed, sign
from app.sandbox.server import run_sandbox
from app.sandbox.settings import SandboxSettings
from tests.fakes import FixedClock
from tests.stores.payments.desk import CALLBACK_PATH, KEYS, PRICE_MINOR, Desk
from tests.waiting import eventually

NUMBER = "0123456789ABCDEFGHJKMNPQRS01"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def charge(desk: Desk, **changes: object) -> ChargeRequest:
    now = desk.stage.now()
    asked = {
        "number": NUMBER,
        "product": Product.QR,
        "amount_minor": PRICE_MINOR,
        "currency": "CNY",
        "description": "Order <1> & more",
        "created_at": now,
        "expires_at": now + timedelta(minutes=15),
    }
    return ChargeRequest(**{**asked, **changes})


def reference(desk: Desk, **changes: object) -> AttemptReference:
    asked = charge(desk, **changes)
    return AttemptReference(
        number=asked.number,
        provider_number=None,
        amount_minor=asked.amount_minor,
        currency=asked.currency,
        created_at=asked.created_at,
    )


@contextlib.asynccontextmanager
async def provider_of(
    url: str, clock: FixedClock, **changes: int
) -> AsyncIterator[SandboxProvider]:
    settings = SandboxProviderSettings(
        url=url, callback_url="http://127.0.0.1:9" + CALLBACK_PATH, keys=KEYS, **changes
    )
    async with SandboxProvider(settings, clock) as provider:
        yield provider


@contextlib.asynccontextmanager
async def gateway_that(answer: Answer) -> AsyncIterator[str]:
    """A gateway that answers every request in its own way."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_payment_through_its_life(desk: Desk):
    provider, attempt = desk.provider, reference(desk)
    missing = await provider.query(attempt)
    assert missing.value is not None
    assert (missing.outcome, missing.value.state) == (Outcome.CONFIRMED, PayState.NOT_FOUND)

    created = await provider.create(charge(desk))
    again = await provider.create(charge(desk))
    assert created.outcome is again.outcome is Outcome.CONFIRMED
    assert created.value == again.value
    changed = await provider.create(charge(desk, amount_minor=1))
    assert (changed.outcome, changed.code) == (Outcome.REJECTED, "NUMBER_USED")

    assert await _state(provider.query(attempt)) is PayState.NOT_PAID
    await desk.play(NUMBER, callback="never")
    paid = await provider.query(attempt)
    assert paid.value is not None
    assert (paid.value.state, paid.value.amount_minor) == (PayState.PAID, PRICE_MINOR)
    closing = await provider.close(attempt)
    assert (closing.outcome, closing.code) == (Outcome.REJECTED, "ALREADY_PAID")


async def test_a_payment_reads_as_closed_when_its_time_is_over(desk: Desk):
    await desk.provider.create(charge(desk))
    desk.clock.advance(15 * 60_000)
    assert await _state(desk.provider.query(reference(desk))) is PayState.CLOSED


async def test_refunds_stay_within_the_payment_and_repeat_with_their_number(desk: Desk):
    provider, attempt = desk.provider, reference(desk)
    await provider.create(charge(desk))
    await desk.play(NUMBER, callback="never")

    def part(ordinal: int, amount_minor: int) -> RefundRequest:
        return RefundRequest(
            number=f"R{NUMBER}S0{ordinal}",
            attempt=attempt,
            amount_minor=amount_minor,
            currency="CNY",
            reason="test",
            requested_at=desk.stage.now(),
        )

    unknown = await provider.query_refund(part(1, 1))
    assert unknown.value is not None
    assert unknown.value.status is RefundStatus.NOT_FOUND
    first = await provider.refund(part(1, 80))
    assert (await provider.refund(part(1, 80))).value == first.value
    assert (await provider.refund(part(1, 81))).code == "NUMBER_USED"
    assert await _state(provider.query(attempt)) is PayState.PARTIAL_REFUND
    assert (await provider.refund(part(2, PRICE_MINOR))).code == "REFUND_EXCEEDS_PAYMENT"
    await provider.refund(part(2, PRICE_MINOR - 80))
    assert await _state(provider.query(attempt)) is PayState.REFUNDED
    told = await provider.query_refund(part(1, 80))
    assert told.value is not None
    assert told.value.status is RefundStatus.SUCCEEDED


async def test_nobody_there_means_not_sent():
    async with provider_of("http://127.0.0.1:9", FixedClock(10**12)) as provider:
        assert (await _create(provider)).outcome is Outcome.NOT_SENT


async def _unsigned(_request: web.Request) -> web.Response:
    return web.json_response({"code": "ORDER_CLOSED"}, status=400)


async def _broken(_request: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>")


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def _redirecting(_request: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/"})


async def _hanging(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


def _signed(status: int, body: bytes, *, nonce: str | None = None, age_seconds: int = 0) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        told = Signed(Purpose.RESPONSE, str(status), request.path, body)
        used = request.headers["Sandbox-Nonce"] if nonce is None else nonce
        headers = sign(Keys(KEYS), told, 10**9 - age_seconds, used)
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _unsigned,
        _broken,
        _cut,
        _redirecting,
        _hanging,
        _signed(500, b'{"code":"SYSTEM_ERROR"}'),
        _signed(200, b"{}"),
        _signed(200, b"not json"),
        _signed(404, b"\xff"),
        _signed(404, b'{"code":"NOT_FOUND"}', nonce="of-another-question"),
        _signed(404, b'{"code":"NOT_FOUND"}', age_seconds=301),
    ],
)
async def test_what_is_not_a_clear_signed_answer_is_unknown(answer: Answer):
    async with (
        gateway_that(answer) as url,
        provider_of(
            url, FixedClock(10**12), connect_timeout_ms=200, answer_timeout_ms=200
        ) as provider,
    ):
        assert (await _create(provider)).outcome is Outcome.UNKNOWN


async def test_an_answer_about_another_number_is_unknown(desk: Desk):
    await desk.provider.create(charge(desk))
    told = await desk.provider.query(reference(desk))

    async def other(request: web.Request) -> web.Response:
        message = Signed(Purpose.RESPONSE, "200", request.path, told.raw)
        nonce = request.headers["Sandbox-Nonce"]
        headers = sign(Keys(KEYS), message, desk.clock.now_ms() // 1000, nonce)
        return web.Response(body=told.raw, headers=headers)

    async with gateway_that(other) as url, provider_of(url, desk.clock) as provider:
        asked = reference(desk, number=NUMBER[:-1] + "2")
        assert (await provider.query(asked)).outcome is Outcome.UNKNOWN


async def test_the_gateway_believes_nobody_without_the_key(desk: Desk):
    for method, path in (
        ("POST", "/v1/payments"),
        ("GET", f"/v1/payments/{NUMBER}"),
        ("POST", f"/v1/payments/{NUMBER}/close"),
        ("POST", "/v1/refunds"),
    ):
        async with desk.client.request(method, desk.gateway_url + path, data=b"{}") as response:
            assert response.status == 401
            assert "Sandbox-Signature" not in response.headers


@pytest.mark.parametrize(
    ("how", "outcomes", "state"),
    [
        ({"callback": "now"}, ["paid"], "paid"),
        ({"callback": "twice"}, ["paid"], "paid"),
        ({"callback": "late", "delay_ms": 50}, ["paid"], "paid"),
        ({"callback": "now", "amount_minor": PRICE_MINOR - 1}, ["amount_mismatch"], "pending"),
        ({"outcome": "decline", "callback": "now"}, ["closed"], "pending"),
    ],
)
async def test_the_control_door_plays_the_shopper_and_the_gateway(
    desk: Desk, how: dict[str, object], outcomes: list[str], state: str
):
    key = await desk.place()
    attempt = await desk.start(key)
    assert await desk.play(attempt.number, **how) == 202

    async def told() -> bool:
        return await desk.outcomes() == outcomes

    await eventually(told)
    assert await desk.order_state(key) == state


async def test_a_forged_callback_changes_nothing_on_either_side(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="forged")

    await eventually(lambda: desk.counted_callbacks("bad_signature") == 1)
    assert await desk.outcomes() == []
    assert await _state(desk.provider.query(attempt.reference())) is PayState.NOT_PAID


async def test_a_message_of_one_cent_less_is_a_lie_and_the_true_one_still_counts(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, amount_minor=PRICE_MINOR - 1)
    await eventually(lambda: desk.counted_callbacks("amount_mismatch") >= 1)
    assert await _state(desk.provider.query(attempt.reference())) is PayState.NOT_PAID

    await desk.play(attempt.number)
    await eventually(lambda: desk.counted_callbacks("paid") == 1)
    assert await desk.order_state(key) == "paid"


async def test_a_shopper_who_walks_away_leaves_the_payment_open(desk: Desk):
    attempt = await desk.start(await desk.place())
    assert await desk.play(attempt.number, "timeout") == 202
    assert await _state(desk.provider.query(attempt.reference())) is PayState.NOT_PAID


async def test_the_control_door_refuses_what_it_does_not_know(desk: Desk):
    attempt = await desk.start(await desk.place())
    assert await desk.play("no-such-payment") == 404
    assert await desk.play(attempt.number, "rob") == 422
    assert await desk.play(attempt.number, callback="maybe") == 422
    assert await desk.play(attempt.number, amount_minor=0) == 422
    assert await desk.play(attempt.number, delay_ms=-1) == 422
    assert await desk.play(attempt.number, unknown=1) == 422


async def test_a_callback_is_repeated_until_it_is_acknowledged(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.execute("ALTER TABLE outbox RENAME TO outbox_away")
    await desk.play(attempt.number)
    await eventually(lambda: desk.counted_requests(500) > 0)
    await desk.execute("ALTER TABLE outbox_away RENAME TO outbox")

    async def paid() -> bool:
        return await desk.order_state(key) == "paid"

    await eventually(paid)


async def test_a_person_pays_at_the_page(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key, return_url='https://shop.example/?a=1&b="2"')
    page = f"{desk.gateway_url}/pay/{attempt.number}"
    async with desk.client.get(page) as response:
        text = await response.text()
        assert response.status == 200
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "88.80 CNY" in text
    assert 'value="pay"' in text
    assert "a=1&amp;b=&quot;2&quot;" in text
    async with desk.client.get(desk.gateway_url) as response:
        assert attempt.number in await response.text()

    async with desk.client.post(page, data={"press": "pay"}) as response:
        text = await response.text()
    assert "Paid. Thank you." in text
    assert 'value="pay"' not in text

    async def paid() -> bool:
        return await desk.order_state(key) == "paid"

    await eventually(paid)
    async with desk.client.get(f"{desk.gateway_url}/pay/unknown") as response:
        assert response.status == 404


async def test_the_gateway_remembers_across_a_restart(desk: Desk, tmp_path):
    settings = SandboxSettings(port=0, journal_dir=tmp_path / "second", keys=KEYS)
    attempt = reference(desk)

    async with _running(settings) as url, provider_of(url, desk.clock) as provider:
        await provider.create(charge(desk))
        async with aiohttp.ClientSession() as client:
            control = f"{url}/control/payments/{NUMBER}"
            async with client.post(control, json={"outcome": "pay"}) as response:
                assert response.status == 202
    journal = settings.journal_dir / "sandbox.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"type":"payment","request":{"num')  # killed in the middle of a line

    async with _running(settings) as url, provider_of(url, desk.clock) as provider:
        told = await provider.query(attempt)
        assert told.value is not None
        assert (told.value.state, told.value.amount_minor) == (PayState.PAID, PRICE_MINOR)
        assert (await provider.create(charge(desk))).outcome is Outcome.CONFIRMED
    kinds = [msgspec.json.decode(line)["type"] for line in journal.read_bytes().splitlines()]
    assert kinds.count("payment") == 1
    assert "callback" in kinds, "what was not acknowledged is tried again"


@contextlib.asynccontextmanager
async def _running(settings: SandboxSettings) -> AsyncIterator[str]:
    stopping = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_sandbox(settings, stopping, ready.set_result))
    try:
        yield await ready
    finally:
        stopping.set()
        await running


async def _create(provider: SandboxProvider) -> Result:
    return await provider.create(
        ChargeRequest(
            number=NUMBER,
            product=Product.QR,
            amount_minor=1,
            currency="CNY",
            description="",
            created_at=instant(10**12),
            expires_at=instant(10**12 + 60_000),
        )
    )


async def _state(asking: Awaitable[Result]) -> PayState:
    told = await asking
    assert told.value is not None
    return told.value.state
