"""
Bugs of callbacks that were seen in the wild, those that no provider's format decides.

Each test is named for its row in the table of docs/PAYMENTS.md §6; the rows about
amounts, accounts, repetitions and late money are in test_capture.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs

from app.payments.enquiry import enquire_once
from app.payments.intent import AttemptState
from app.payments.provider import Outcome, PaySnapshot, PayState, RefundStatus, Result
from app.payments.providers.sandbox_wire import RefundMessage
from app.payments.refunds import send_refunds_once
from app.payments.stage import Providers
from tests.stores.payments.desk import CALLBACK_PATH, PRICE_MINOR, Desk


class Answering:
    """The real provider, but for what it says of a payment or a refund."""

    def __init__(self, real, told: Result) -> None:
        self._real = real
        self._told = told

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    async def query(self, _attempt) -> Result:
        return self._told

    async def refund(self, _refund) -> Result:
        return self._told


async def test_row_14__a_part_that_went_back_before_the_payment_was_told_proves_it(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    early = desk.message(attempt, state="partial_refund")
    with capture_logs() as logs:
        assert (await desk.receive(desk.callback(early, "evt-part"))).status == 200
    assert "payment_partly_refunded_elsewhere" in [line["event"] for line in logs]
    assert await desk.order_state(key) == "paid"
    assert (await desk.receive(desk.callback(desk.message(attempt), "evt-paid"))).status == 200
    assert (await desk.attempt(attempt.number)).state is AttemptState.PAID
    assert [kind for kind, _ in await desk.facts()] == ["payment_captured"]


async def test_row_14__a_payment_told_after_all_of_it_went_back_pays_nothing(desk: Desk):
    """Whoever ships an order for it would ship it for nothing."""
    key = await desk.place()
    attempt = await desk.start(key)
    early = desk.message(attempt, state="refunded")
    assert (await desk.receive(desk.callback(early, "evt-refunded"))).status == 200
    assert (await desk.receive(desk.callback(desk.message(attempt), "evt-paid"))).status == 200

    assert await desk.outcomes() == ["refunded_elsewhere"] * 2
    assert await desk.order_state(key) == "pending"
    assert await desk.facts() == []
    letters = await desk.rows("SELECT reason FROM dead_letters WHERE kind = 'callback'")
    assert [letter["reason"] for letter in letters] == ["refunded_elsewhere"] * 2


async def test_row_14__a_refund_that_we_never_asked_for_is_kept_and_not_believed(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    told = RefundMessage(
        number=f"R{attempt.number}L01",
        payment_number=attempt.number,
        merchant_id=desk.provider.account.merchant_id,
        status=RefundStatus.SUCCEEDED,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        provider_number="SBR1",
    )

    reply = await desk.receive(desk.refund_callback(told, "evt-early"))

    assert reply.status == 404
    assert await desk.order_state(key) == "pending"
    letters = await desk.rows("SELECT reason FROM dead_letters WHERE kind = 'callback'")
    assert [letter["reason"] for letter in letters] == ["unknown_number"]
    assert (await desk.receive(desk.callback(desk.message(attempt), "evt-paid"))).status == 200
    assert await desk.order_state(key) == "paid"


async def test_row_16__an_acknowledgement_that_is_lost_after_the_commit_is_repeated(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    raw = desk.callback(desk.message(attempt))
    request = (
        f"POST {CALLBACK_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in desk.signed(raw).items())
        + "\r\n"
    ).encode() + raw
    host, port = desk.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    await reader.read(1)  # it answers, so it has committed; nobody reads what
    writer.transport.abort()

    assert await desk.order_state(key) == "paid"
    assert (await desk.receive(raw)).status == 200
    assert await desk.outcomes() == ["paid"]
    assert await desk.facts() == [("payment_captured", attempt.number)]


async def test_row_22__the_page_the_shopper_comes_back_by_pays_nothing(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    claims = f"?out_trade_no={attempt.number}&trade_status=TRADE_SUCCESS&total_amount=88.80"
    url = f"{desk.url}{CALLBACK_PATH}{claims}"
    async with desk.client.get(url) as visited:
        assert visited.status == 405
    async with desk.client.post(url) as posted:
        assert posted.status == 401
    back = f"{desk.url}/v1/orders/{desk.order_id(key)}/payments{claims}"
    async with desk.client.get(back, headers={"Shopper": "ann"}) as returned:
        assert returned.status in (404, 405)

    assert await desk.order_state(key) == "pending"
    assert await desk.outcomes() == []


@contextlib.asynccontextmanager
async def _posting(desk: Desk, **how) -> AsyncIterator[tuple[int, dict]]:
    url = f"{desk.url}{CALLBACK_PATH}"
    async with desk.client.post(url, **how) as response:
        yield response.status, msgspec.json.decode(await response.read())


async def test_row_23__a_body_that_is_too_long_is_refused_in_the_providers_words(desk: Desk):
    async def without_end() -> AsyncIterator[bytes]:
        for _ in range(66):
            yield b"x" * 1_000

    for body in (b"x" * 65_537, without_end()):
        async with _posting(desk, data=body) as told:
            assert told == (400, {"code": "MALFORMED"})
    assert desk.counted_callbacks("body_too_large") == 2
    assert await desk.outcomes() == []


async def test_row_23__a_packed_body_is_not_unpacked(desk: Desk):
    headers = {"Content-Encoding": "gzip"}
    async with _posting(desk, data=b"\x1f\x8b", headers=headers) as told:
        assert told == (400, {"code": "MALFORMED"})
    assert desk.counted_callbacks("unsupported_media_type") == 1


async def test_row_23__a_body_that_does_not_come_is_given_up_and_may_be_repeated(desk: Desk):
    given_up = asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await given_up.wait()

    async with _posting(desk, data=dripping()) as told:
        given_up.set()
        assert told == (503, {"code": "UNAVAILABLE"})
    assert desk.counted_callbacks("too_slow") == 1


async def test_a_state_that_we_do_not_know_changes_nothing_and_alarms(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    told = PaySnapshot(
        number=attempt.number,
        state=PayState.UNKNOWN,
        merchant_id=desk.provider.account.merchant_id,
        app_id=desk.provider.account.app_id,
    )
    answering = Answering(desk.provider, Result(Outcome.CONFIRMED, told))
    await desk.make_due()

    await enquire_once(desk.stage_with(Providers([answering])))

    assert (await desk.attempt(attempt.number)).state is AttemptState.OPEN
    assert await desk.order_state(key) == "pending"
    labels = {"provider": "sandbox", "result": "unknown_state"}
    assert desk.metrics.get_sample_value("doorbuster_payments_total", labels) == 1


@pytest.mark.parametrize("status", [RefundStatus.UNKNOWN, RefundStatus.PROCESSING])
async def test_a_refund_in_an_unclear_state_is_asked_about_again(desk: Desk, status: RefundStatus):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.close_order(key)
    await desk.receive(desk.callback(desk.message(attempt)))
    (refund,) = await desk.refunds()
    snapshot = RefundMessage(
        number=refund["number"],
        payment_number=attempt.number,
        merchant_id=desk.provider.account.merchant_id,
        status=status,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        provider_number="SBR1",
    )
    answering = Answering(desk.provider, Result(Outcome.CONFIRMED, snapshot))

    await send_refunds_once(desk.stage_with(Providers([answering])))

    (refund,) = await desk.refunds()
    assert refund["state"] == "sent"
