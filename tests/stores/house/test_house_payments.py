"""The house's ways to pay on real stores: once each, never overdrawn, books exact."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from app.orders.closer import AttemptsSettled
from app.payments.enquiry import enquire_once
from app.payments.expiry import close_attempt
from app.payments.operator_refunds import Asked, RefundAsk, ask_refund
from app.payments.provider import ChargeRequest, Outcome, Product, Result
from app.payments.refunds import send_refunds_once
from app.payments.router import Router
from app.payments.settings import RoutingSettings
from app.payments.start import Started, StartRefusal
from app.payments.tally import PaymentTally
from app.settlement.house.desk import HouseRefusal
from app.settlement.house.store import Paid, mark_paid
from tests.stores.house.conftest import ACT, PRICE_MINOR


async def ask_back(scene, key, amount_minor=PRICE_MINOR):
    ask = RefundAsk(
        order_id=scene.desk.order_id(key),
        idempotency_key="refund-0123456789ab",
        amount_minor=amount_minor,
        reason="damaged",
        actor="olga",
    )
    asked = await ask_refund(scene.stage, ask)
    assert isinstance(asked, Asked)
    await send_refunds_once(scene.stage)
    return asked.refund.number


async def refund_state(scene, number):
    (row,) = await scene.desk.rows(
        "SELECT state::text AS state FROM refunds WHERE number = $1", number
    )
    return row["state"]


async def acts(scene):
    return [row["act"] for row in await scene.rows("SELECT act FROM audit_rows ORDER BY id")]


async def test_a_balance_pays_at_once_and_takes_its_money_back(scene):
    topped_up, repeated = await scene.top_up(10_000)
    assert (topped_up.balance_minor, repeated) == (10_000, False)
    key, started = await scene.start("balance")
    assert isinstance(started, Started)
    assert started.payment.status == "paid"
    assert await scene.order_state(key) == "paid"
    number = await ask_back(scene, key, 3_000)
    assert await refund_state(scene, number) == "succeeded"
    entries = await scene.rows(
        "SELECT kind, amount_minor, balance_after_minor FROM balance_entries ORDER BY ordinal"
    )
    assert [tuple(row) for row in entries] == [
        ("top_up", 10_000, 10_000),
        ("payment", -8_880, 1_120),
        ("refund", 3_000, 4_120),
    ]
    books = await scene.books()
    assert (books["stored_value"], books["bank.cny"]) == (4_120, 10_000)
    assert books["provider.balance.receivable"] == 0


async def test_a_balance_that_is_too_low_pays_nothing_and_the_key_may_be_used_again(scene):
    await scene.top_up(PRICE_MINOR - 1)
    key, started = await scene.start("balance")
    assert started is StartRefusal.BALANCE_INSUFFICIENT
    assert await scene.order_state(key) == "pending"
    await scene.top_up(1, key="top-up-of-one-cent-0")
    _, started = await scene.start("balance", key=key)
    assert isinstance(started, Started)
    assert started.payment.status == "paid"
    assert (await scene.books())["stored_value"] == 0


async def test_shoppers_without_money_open_no_breaker(scene):
    settings = RoutingSettings(breaker_failures_max=2)
    tally = PaymentTally(CollectorRegistry())
    router = Router(settings, (), (), scene.desk.clock, tally)
    routed = replace(scene, stage=replace(scene.stage, routing=router))
    for turn in range(5):
        _, started = await routed.start("balance", idempotency_key=f"key-of-the-poor-{turn:04}")
        assert started is StartRefusal.BALANCE_INSUFFICIENT
    await routed.top_up(PRICE_MINOR)
    _, started = await routed.start("balance", idempotency_key="key-of-the-rich-0000")
    assert isinstance(started, Started), "a breaker that opened would have sent nothing"
    assert started.payment.status == "paid"
    provider = scene.stage.providers.of("balance", "")
    unreached = Result(Outcome.NOT_SENT)
    for _ in range(2):
        router.note(provider, Product.DIRECT, unreached, 1)
    assert not router.may_call(provider), "what does count opens this very breaker"


async def test_a_top_up_is_one_act_per_key(scene):
    first, _ = await scene.top_up(500)
    again, repeated = await scene.top_up(500)
    assert (again, repeated) == (first, True)
    assert await scene.top_up(501) is HouseRefusal.IDEMPOTENCY_MISMATCH
    assert (await scene.books())["stored_value"] == 500
    assert await acts(scene) == ["balance topped up"]


async def test_fifty_spends_at_once_of_a_balance_that_covers_ten(scene):
    await scene.top_up(1_005)
    provider = scene.stage.providers.of("balance", "")
    now = scene.stage.now()

    async def spend(turn):
        charge = ChargeRequest(
            number=f"{turn:028d}",
            product=Product.DIRECT,
            amount_minor=100,
            currency="CNY",
            description="",
            created_at=now,
            expires_at=now,
            shopper="ann",
        )
        while (told := await provider.create(charge)).outcome is Outcome.UNKNOWN:
            pass  # a crowded pool: the number is the same, so asking again is safe
        return told

    told = await asyncio.gather(*map(spend, range(50)))
    assert [one.outcome for one in told].count(Outcome.CONFIRMED) == 10
    assert sum(one.lacks_funds for one in told) == 40
    again = await asyncio.gather(*map(spend, range(50)))
    assert [one.outcome for one in again].count(Outcome.CONFIRMED) == 10
    (balance,) = await scene.rows("SELECT balance_minor, entries FROM balances")
    assert tuple(balance) == (5, 11)
    (summed,) = await scene.rows("SELECT sum(amount_minor)::bigint FROM balance_entries")
    assert summed[0] == 5
    assert (await scene.books())["stored_value"] == 5


async def test_the_database_itself_refuses_an_overdraft(scene):
    await scene.top_up(100)
    with pytest.raises(asyncpg.CheckViolationError, match="never_overdrawn"):
        await scene.rows("UPDATE balances SET balance_minor = balance_minor - 101 RETURNING id")


async def test_what_the_house_decided_reaches_the_order_whoever_died_in_between(scene):
    key, started = await scene.start("offline")
    # The teller died between its commit beside the books and telling the shard.
    paid = Paid(reference="slip-1", paid_at=scene.stage.now(), note="cash", actor="olga")
    async with scene.ledger.transaction() as connection:
        await mark_paid(connection, started.payment.payment_id, paid)
    assert await scene.order_state(key) == "pending"
    await scene.desk.make_due()
    assert await enquire_once(scene.stage) == 1
    assert await scene.order_state(key) == "paid"


async def test_proof_pays_an_offline_payment_once(scene):
    key, started = await scene.start("offline")
    number = started.payment.payment_id
    house = scene.house
    wrong = await house.confirm_offline(number, PRICE_MINOR - 1, "CNY", scene.proof())
    assert wrong is HouseRefusal.AMOUNT_MISMATCH
    assert await scene.order_state(key) == "pending"
    for _ in range(2):
        settled = await house.confirm_offline(number, PRICE_MINOR, "CNY", scene.proof())
        assert settled.state == "paid"
    other = await house.confirm_offline(number, PRICE_MINOR, "CNY", scene.proof("slip-2"))
    assert other is HouseRefusal.PAYMENT_NOT_OPEN
    assert await scene.order_state(key) == "paid"
    _, second = await scene.start("offline")
    reused = await house.confirm_offline(
        second.payment.payment_id, PRICE_MINOR, "CNY", scene.proof()
    )
    assert reused is HouseRefusal.PROOF_REUSED
    assert await acts(scene) == ["payment confirmed"]


async def test_an_offline_refund_waits_for_the_proof_that_it_was_paid_back(scene):
    key, started = await scene.start("offline")
    await scene.house.confirm_offline(started.payment.payment_id, PRICE_MINOR, "CNY", scene.proof())
    number = await ask_back(scene, key)
    assert await refund_state(scene, number) == "sent"
    for _ in range(2):
        settled = await scene.house.confirm_paid_back(number, scene.proof("back-1"))
        assert settled.state == "succeeded"
    assert await refund_state(scene, number) == "succeeded"
    other = await scene.house.confirm_paid_back(number, scene.proof("back-2"))
    assert other is HouseRefusal.REFUND_SETTLED
    assert await acts(scene) == ["payment confirmed", "refund paid back"]
    assert (await scene.books())["provider.offline.receivable"] == 0


async def test_a_closed_payment_takes_no_proof_and_no_money(scene):
    key, started = await scene.start("offline")
    number = started.payment.payment_id
    ended = await close_attempt(scene.stage, await scene.desk.attempt(number))
    assert ended is AttemptsSettled.CLOSED
    late = await scene.house.confirm_offline(number, PRICE_MINOR, "CNY", scene.proof())
    assert late is HouseRefusal.PAYMENT_NOT_OPEN
    assert await scene.order_state(key) == "pending"


async def transfer(scene):
    key, started = await scene.start("transfer")
    params = started.payment.action["params"]
    assert params["bank_account"] == "CN00 1234"
    assert params["amount_minor"] == str(PRICE_MINOR)
    return key, started.payment.payment_id, params["remittance_code"]


async def test_a_bank_line_pays_what_its_code_names_and_each_line_once(scene):
    key, number, code = await transfer(scene)
    line = scene.line("bank-1", PRICE_MINOR, f"tea {code.lower()}")
    imported, repeated = await scene.bring(line)
    assert ([one.outcome for one in imported.lines], repeated) == (["matched"], False)
    assert await scene.order_state(key) == "paid"
    assert (await scene.bring(line))[1] is True
    (known,) = (await scene.bring(line, key="the-same-file-again-0"))[0].lines
    assert (known.outcome, known.payment_id) == ("known", number)
    changed = scene.line("bank-1", PRICE_MINOR + 1, code)
    assert await scene.bring(changed) is HouseRefusal.IDEMPOTENCY_MISMATCH
    (differs,) = (await scene.bring(changed, key="a-changed-file-0000000"))[0].lines
    assert differs.outcome == "differs"
    books = await scene.books()
    assert (books["bank.cny"], books["suspense.bank_transfer"]) == (PRICE_MINOR, 0)
    assert books["provider.transfer.receivable"] == 0


@pytest.mark.parametrize(
    ("lack", "currency", "reason"),
    [(1, "CNY", "amount_differs"), (0, "USD", "currency_differs")],
)
async def test_another_amount_waits_in_suspense(scene, lack, currency, reason):
    key, number, code = await transfer(scene)
    line = scene.line("bank-1", PRICE_MINOR - lack, code, currency)
    (told,) = (await scene.bring(line))[0].lines
    assert (told.outcome, told.reason) == ("suspense", reason)
    assert await scene.order_state(key) == "pending"
    assert await scene.bank.assign("bank-1", number, ACT) is HouseRefusal.AMOUNT_MISMATCH
    account = "suspense.bank_transfer" + ("" if currency == "CNY" else ".usd")
    assert (await scene.books())[account] == PRICE_MINOR - lack


async def test_a_line_before_its_order_is_assigned_by_hand(scene):
    (early,) = (await scene.bring(scene.line("bank-1", PRICE_MINOR, "tea, ann")))[0].lines
    assert early.reason == "unknown_code"
    key, number, _ = await transfer(scene)
    for _ in range(2):
        line = await scene.bank.assign("bank-1", number, ACT)
        assert (line.state, line.payment_number) == ("matched", number)
    assert await scene.order_state(key) == "paid"
    back = await scene.bank.send_back("bank-1", "return-1", ACT)
    assert back is HouseRefusal.BANK_LINE_SETTLED
    assert (await scene.books())["suspense.bank_transfer"] == 0
    assert await acts(scene) == ["bank lines imported", "bank line assigned"]


async def test_a_line_after_the_close_is_sent_back(scene):
    key, number, code = await transfer(scene)
    await close_attempt(scene.stage, await scene.desk.attempt(number))
    await scene.desk.close_order(key)
    (late,) = (await scene.bring(scene.line("bank-1", PRICE_MINOR, code)))[0].lines
    assert (late.outcome, late.reason) == ("suspense", "payment_closed")
    assert await scene.bank.assign("bank-1", number, ACT) is HouseRefusal.PAYMENT_NOT_OPEN
    for _ in range(2):
        assert (await scene.bank.send_back("bank-1", "return-1", ACT)).state == "returned"
    assert await scene.order_state(key) == "closed"
    books = await scene.books()
    assert (books["bank.cny"], books["suspense.bank_transfer"]) == (0, 0)


async def test_a_transfer_is_paid_back_from_the_bank(scene):
    key, _, code = await transfer(scene)
    await scene.bring(scene.line("bank-1", PRICE_MINOR, code))
    number = await ask_back(scene, key)
    await scene.house.confirm_paid_back(number, scene.proof("back-1"))
    assert await refund_state(scene, number) == "succeeded"
    books = await scene.books()
    assert (books["bank.cny"], books["provider.transfer.receivable"]) == (0, 0)


async def test_a_line_and_the_closer_at_the_same_instant_agree(scene):
    for turn in range(10):
        key, started = await scene.start("transfer")
        code = started.payment.action["params"]["remittance_code"]
        attempt = await scene.desk.attempt(started.payment.payment_id)
        line = scene.line(f"bank-{turn}", PRICE_MINOR, code)
        (imported, _), ended = await asyncio.gather(
            scene.bring(line, key=f"import-number-{turn:04d}"),
            close_attempt(scene.stage, attempt),
        )
        paid = imported.lines[0].outcome == "matched"
        assert ended is (AttemptsSettled.PAID if paid else AttemptsSettled.CLOSED)
        assert await scene.order_state(key) == ("paid" if paid else "pending")
    (balance,) = await scene.rows(
        "SELECT coalesce(sum(amount_minor), 0)::bigint FROM bank_lines WHERE state = 'suspense'"
    )
    assert (await scene.books()).get("suspense.bank_transfer", 0) == balance[0]
