"""How a payment starts, and every way in which it does not."""

import asyncio
from datetime import timedelta

import pytest

from app.kernel.errors import ProviderUnavailable
from app.kernel.ids import OrderKey
from app.payments.enquiry import enquire_once
from app.payments.intent import AttemptState
from app.payments.provider import MerchantAccount, Outcome, Product, Result
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.stage import Providers
from app.payments.start import Started, StartRefusal, start_payment
from app.payments.views import PaymentStatus, payments_of_order
from tests.stores.payments.desk import CALLBACK_PATH, KEYS, PRICE_MINOR, Desk

OTHER_KEY = "key-another-0123456"


async def test_a_started_payment_tells_how_to_pay_and_until_when(desk: Desk):
    key = await desk.place()
    started = await start_payment(desk.stage, desk.wish(key))

    assert isinstance(started, Started)
    payment = started.payment
    assert payment.payment_id == f"{desk.order_id(key)}01"
    assert (payment.status, payment.amount_minor, payment.currency) == (
        PaymentStatus.OPEN, PRICE_MINOR, "CNY",
    )  # fmt: skip
    page = f"{desk.gateway_url}/pay/{payment.payment_id}"
    assert payment.action == {"kind": "qr", "text": page, "page": page}
    assert payment.expires_at.endswith("Z")
    payments, refunds = await payments_of_order(desk.stage.shards, key)
    assert (payments, refunds) == ([payment], [])


async def test_the_same_key_gets_the_same_payment_and_another_content_is_refused(desk: Desk):
    key = await desk.place()
    first = await start_payment(desk.stage, desk.wish(key))
    second = await start_payment(desk.stage, desk.wish(key))
    other = await start_payment(desk.stage, desk.wish(key, product=Product.PAGE))

    assert isinstance(first, Started)
    assert second == Started(first.payment, replayed=True)
    assert other is StartRefusal.IDEMPOTENCY_MISMATCH


async def test_twenty_requests_at_once_open_one_payment(desk: Desk):
    key = await desk.place()
    answers = await asyncio.gather(*(start_payment(desk.stage, desk.wish(key)) for _ in range(20)))
    opened = {answer.payment.payment_id for answer in answers if isinstance(answer, Started)}
    refused = {answer for answer in answers if isinstance(answer, StartRefusal)}
    assert len(opened) == 1
    assert refused <= {StartRefusal.PAYMENT_IN_PROGRESS}
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 1


async def test_another_key_closes_the_earlier_attempt_at_its_provider_first(desk: Desk):
    key = await desk.place()
    first = await desk.start(key)
    second = await desk.start(key, idempotency_key=OTHER_KEY)

    assert second.number == f"{first.number[:-2]}02"
    assert (await desk.attempt(first.number)).state is AttemptState.CLOSED
    told = await desk.provider.query(first.reference())
    assert told.value is not None
    assert told.value.state == "closed"


async def test_another_key_finds_that_the_earlier_attempt_was_paid(desk: Desk):
    key = await desk.place()
    first = await desk.start(key)
    await desk.play(first.number, callback="never")

    answer = await start_payment(desk.stage, desk.wish(key, idempotency_key=OTHER_KEY))

    assert answer is StartRefusal.ORDER_NOT_PAYABLE
    assert await desk.order_state(key) == "paid"


async def test_an_order_that_is_not_pending_cannot_be_paid(desk: Desk):
    for state in ("closing", "closed", "paid"):
        key = await desk.place(state=state)
        answer = await start_payment(desk.stage, desk.wish(key))
        assert answer is StartRefusal.ORDER_NOT_PAYABLE, state


async def test_no_payment_starts_shortly_before_the_deadline(desk: Desk):
    soon = await desk.place(pay_in=timedelta(seconds=19))  # a quarter of 79 s
    early = await desk.place(pay_in=timedelta(seconds=21))  # more than a quarter of 81 s
    assert await start_payment(desk.stage, desk.wish(soon)) is StartRefusal.ORDER_NOT_PAYABLE
    assert isinstance(await start_payment(desk.stage, desk.wish(early)), Started)


async def test_whose_order_it_is_not_and_what_is_no_order_is_not_found(desk: Desk):
    key = await desk.place()
    for order_id, shopper in (
        (desk.order_id(key), "bob"),
        (desk.order_id(key, "bob"), "bob"),  # the id's tag is his, the row's owner is not
        ("0" * 26, "ann"),
        ("x", "ann"),
        (desk.order_id(OrderKey(1, 0, 2, 0)), "ann"),  # an epoch that never was
    ):
        wish = desk.wish(key, order_id=order_id, shopper=shopper)
        assert await start_payment(desk.stage, wish) is StartRefusal.ORDER_NOT_FOUND
    assert await desk.rows("SELECT 1 FROM payment_attempts") == []


async def test_an_order_without_a_row_is_not_confirmed_yet(desk: Desk):
    queued = OrderKey(1, 0, 1, 5_000)
    wish = desk.wish(queued)
    assert await start_payment(desk.stage, wish) is StartRefusal.ORDER_NOT_CONFIRMED


async def test_a_provider_that_was_not_reached_leaves_the_key_free(desk: Desk):
    key = await desk.place()
    async with SandboxProvider(nowhere(desk), desk.clock) as unreachable:
        with pytest.raises(ProviderUnavailable):
            await start_payment(desk.stage_with(Providers([unreachable])), desk.wish(key))

    again = await start_payment(desk.stage, desk.wish(key))

    assert isinstance(again, Started)
    assert not again.replayed
    payments, _ = await payments_of_order(desk.stage.shards, key)
    assert [payment.status for payment in payments] == [PaymentStatus.CLOSED, PaymentStatus.OPEN]


def nowhere(desk: Desk) -> SandboxProviderSettings:
    """Settings of another account, at an address where nobody listens."""
    return SandboxProviderSettings(
        url="http://127.0.0.1:9",
        callback_url=f"{desk.url}{CALLBACK_PATH}/other",
        keys=KEYS,
        account="other",
    )


class Declining:
    """The real provider under another account, which it declines to serve."""

    code = "sandbox"

    def __init__(self, real: SandboxProvider, *, concerns_account: bool) -> None:
        self._real = real
        self._concerns_account = concerns_account
        self.account = MerchantAccount("other", "another-merchant", "another-app")

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    async def create(self, _charge) -> Result:
        return Result(Outcome.REJECTED, code="NO_AUTH", concerns_account=self._concerns_account)


async def test_a_route_that_was_not_reached_is_left_for_the_next(desk: Desk):
    key = await desk.place()
    async with SandboxProvider(nowhere(desk), desk.clock) as unreachable:
        stage = desk.stage_with(Providers([unreachable, desk.provider]))
        started = await start_payment(stage, desk.wish(key))
        again = await start_payment(stage, desk.wish(key))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.OPEN
    assert started.payment.payment_id.endswith("02")
    assert again == Started(started.payment, replayed=True)
    first = await desk.attempt(f"{desk.order_id(key)}01")
    assert (first.state, first.account) == (AttemptState.NOT_SENT, "other")


async def test_a_route_whose_account_was_declined_is_left_for_the_next(desk: Desk):
    key = await desk.place()
    declining = Declining(desk.provider, concerns_account=True)
    stage = desk.stage_with(Providers([declining, desk.provider]))
    started = await start_payment(stage, desk.wish(key))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.OPEN
    assert started.payment.payment_id.endswith("02")
    assert (await desk.attempt(f"{desk.order_id(key)}01")).state is AttemptState.CLOSED


async def test_a_request_that_was_declined_for_itself_goes_nowhere_else(desk: Desk):
    key = await desk.place()
    declining = Declining(desk.provider, concerns_account=False)
    stage = desk.stage_with(Providers([declining, desk.provider]))
    started = await start_payment(stage, desk.wish(key))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.CLOSED
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 1


async def test_an_unknown_outcome_is_never_left_for_another_route(desk: Desk):
    key = await desk.place()
    silent = Declining(desk.provider, concerns_account=True)

    async def create(_charge) -> Result:
        return Result(Outcome.UNKNOWN)

    silent.create = create  # type: ignore[method-assign]
    stage = desk.stage_with(Providers([silent, desk.provider]))
    started = await start_payment(stage, desk.wish(key))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.UNKNOWN
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 1


async def test_a_request_repeated_after_a_lost_answer_gets_the_action(desk: Desk):
    key = await desk.place()
    first = await desk.start(key)
    await desk.execute("UPDATE payment_attempts SET state = 'created', action = NULL")

    running = await start_payment(desk.stage, desk.wish(key))
    desk.clock.advance(5_000)
    repeated = await start_payment(desk.stage, desk.wish(key))

    assert running is StartRefusal.PAYMENT_IN_PROGRESS
    assert isinstance(repeated, Started)
    assert repeated.replayed
    assert repeated.payment.payment_id == first.number
    assert repeated.payment.action is not None


@pytest.mark.parametrize("concerns_account", [True, False])
async def test_a_repeat_that_is_refused_says_nothing_of_the_first_call(
    desk: Desk, *, concerns_account: bool
):
    """The first call opened it, its answer was lost, and it was paid all the same."""
    key = await desk.place()
    first = await desk.start(key)
    await desk.execute("UPDATE payment_attempts SET state = 'created', action = NULL")
    desk.clock.advance(5_000)
    declining = Declining(desk.provider, concerns_account=concerns_account)
    declining.account = desk.provider.account

    repeated = await start_payment(desk.stage_with(Providers([declining])), desk.wish(key))

    assert isinstance(repeated, Started)
    assert repeated.payment.status is PaymentStatus.UNKNOWN
    await desk.play(first.number, callback="never")
    await desk.make_due()
    assert await enquire_once(desk.stage) == 1
    assert await desk.order_state(key) == "paid"


async def test_a_lost_answer_of_an_order_that_ended_stays_unknown(desk: Desk):
    key = await desk.place()
    await desk.start(key)
    await desk.execute("UPDATE payment_attempts SET state = 'created', action = NULL")
    await desk.set_closing(key)
    desk.clock.advance(5_000)

    repeated = await start_payment(desk.stage, desk.wish(key))

    assert isinstance(repeated, Started)
    assert repeated.payment.status is PaymentStatus.UNKNOWN


async def _post(desk: Desk, key: OrderKey, body: object, **headers: str) -> tuple[int, dict]:
    url = f"{desk.url}/v1/orders/{desk.order_id(key)}/payments"
    sent = {"Shopper": "ann", "Idempotency-Key": "key-0123456789abcdef", **headers}
    async with desk.client.post(url, json=body, headers=sent) as response:
        return response.status, await response.json()


async def test_the_route_answers_201_with_the_payment_and_again_as_a_replay(desk: Desk):
    key = await desk.place()
    body = {"provider": "sandbox", "product": "page", "return_url": "https://shop.example/back"}
    first = await _post(desk, key, body)
    second = await _post(desk, key, body)
    assert first == second
    assert first[0] == 201
    assert first[1]["action"]["kind"] == "redirect"


async def test_the_route_names_the_field_that_is_wrong(desk: Desk):
    key = await desk.place()
    sound = {"provider": "sandbox", "product": "qr"}
    for body, path in (
        ({}, "$.provider"),
        ({"provider": "sandbox"}, "$.product"),
        ({"provider": "nobody", "product": "qr"}, "$.provider"),
        ({"provider": "sandbox", "product": "app"}, "$.product"),
        ({"provider": "sandbox", "product": "cash"}, "$.product"),
        ({"provider": 1, "product": "qr"}, "$.provider"),
        ({**sound, "amount_minor": 1}, "$.amount_minor"),
        ({**sound, "return_url": "javascript:x"}, "$.return_url"),
        ({**sound, "return_url": "http://a\n"}, "$.return_url"),
        ({**sound, "return_url": "http://" + 300 * "a"}, "$.return_url"),
    ):
        status, told = await _post(desk, key, body)
        assert (status, told["code"]) == (422, "validation_failed"), body
        assert told["errors"][0]["path"] == path
    assert await desk.rows("SELECT 1 FROM payment_attempts") == []


async def test_a_callback_to_an_unknown_provider_or_account_is_not_found(desk: Desk):
    for path in ("nobody", "sandbox/other", "SANDBOX"):
        async with desk.client.post(f"{desk.url}/v1/callbacks/{path}", data=b"{}") as response:
            assert response.status == 404
