"""A refused refund that a person paid out ends once, with its proof; a second payout is told."""

import asyncio

import pytest
from structlog.testing import capture_logs

from app.kernel.equation import Verdict, verdict_of
from app.payments.audit import audit_payments
from app.payments.intent import Refund, RefundState
from app.payments.operator_refunds import retry_refund
from app.payments.provider import RefundStatus
from app.payments.providers.sandbox_wire import RefundMessage
from app.payments.refunds_by_hand import CloseRefusal, Payout, close_refund
from app.sales.store import Act
from app.settlement.audit import audit_ledger
from app.settlement.audit_postings import audit_postings
from app.settlement.poster import SettlementSettings, post_once
from app.storage.shards import Database
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.stores.payments.test_refunds import late_payment

ACT = Act(actor="olga", reason="Paid from the till")
SLIP = Payout(reference="slip-1", act=ACT)
ACTS = "SELECT actor, reason, detail FROM audit_rows WHERE act = 'refund paid by hand'"
BALANCES = """
SELECT code, debits_posted - credits_posted AS net FROM ledger_accounts
WHERE debits_posted <> credits_posted"""


async def abnormal(desk: Desk) -> str:
    """Leave a refund that its provider refused; return its number."""
    await late_payment(desk)
    await desk.execute("UPDATE refunds SET state = 'abnormal', settled_at = now()")
    (refund,) = await desk.refunds()
    return str(refund["number"])


async def tell(desk: Desk, number: str, status: RefundStatus, event: str) -> int:
    """Have the provider tell of a refund; return what it is answered with."""
    told = RefundMessage(
        number=number,
        payment_number=number[1:-3],
        merchant_id=desk.provider.account.merchant_id,
        status=status,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        provider_number="SBR1",
    )
    return (await desk.receive(desk.refund_callback(told, event))).status


async def refund_facts(desk: Desk) -> list[str]:
    return [kind for kind, _ in await desk.facts() if kind.startswith("refund_")]


async def books(desk: Desk, ledger: Database) -> dict[str, int]:
    """Post every fact, see that every rule holds at rest, and return what accounts hold."""
    shards = desk.stage.shards
    while (await post_once(shards, ledger, SettlementSettings())).facts_posted:
        pass
    equations = [
        *await audit_payments(shards),
        *await audit_postings(shards, ledger),
        *await audit_ledger(ledger, live=False),
    ]
    assert verdict_of(equations) is Verdict.HOLDS, equations
    async with ledger.connection() as connection:
        return {row["code"]: row["net"] for row in await connection.fetch(BALANCES)}


async def test_the_same_proof_closes_once_however_often_it_is_shown(
    desk: Desk, ledger_database: Database
):
    number = await abnormal(desk)

    closed = await asyncio.gather(*(close_refund(desk.stage, number, SLIP) for _ in range(5)))

    for refund in closed:
        assert isinstance(refund, Refund)
        assert (refund.state, refund.by_hand) == (RefundState.SUCCEEDED, "slip-1")
    assert await refund_facts(desk) == ["refund_requested", "refund_paid_by_hand"]
    (act,) = await desk.rows(ACTS)
    assert (act["actor"], act["reason"]) == ("olga", "Paid from the till")
    assert act["detail"] == {"reference": "slip-1", "amount_minor": PRICE_MINOR}
    # The provider still has what it took; our bank has paid.
    assert await books(desk, ledger_database) == {
        "provider.sandbox.receivable": PRICE_MINOR,
        "bank.cny": -PRICE_MINOR,
    }


async def test_another_proof_does_not_close_what_is_closed(desk: Desk):
    number = await abnormal(desk)
    await close_refund(desk.stage, number, SLIP)

    other = await close_refund(desk.stage, number, Payout(reference="slip-2", act=ACT))

    assert other is CloseRefusal.REFUND_SETTLED
    assert len(await desk.rows(ACTS)) == 1


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ("requested", CloseRefusal.REFUND_UNDER_WAY),
        ("sent", CloseRefusal.REFUND_UNDER_WAY),
        ("unknown", CloseRefusal.REFUND_UNDER_WAY),
        ("succeeded", CloseRefusal.REFUND_SETTLED),
    ],
)
async def test_only_a_refund_that_was_refused_is_closed(
    desk: Desk, state: str, refusal: CloseRefusal
):
    number = await abnormal(desk)
    await desk.execute("UPDATE refunds SET state = $1::text::refund_state", state)

    assert await close_refund(desk.stage, number, SLIP) is refusal
    assert [refund["state"] for refund in await desk.refunds()] == [state]
    assert await refund_facts(desk) == ["refund_requested"]
    assert await desk.rows(ACTS) == []


async def test_a_number_that_is_not_there_is_not_closed(desk: Desk):
    number = await abnormal(desk)
    for stranger in (f"{number[:-2]}99", "R1234567", "", "\x00"):
        assert await close_refund(desk.stage, stranger, SLIP) is CloseRefusal.NOT_FOUND


async def test_of_closing_and_sending_again_one_wins(desk: Desk):
    number = await abnormal(desk)

    closed, retried = await asyncio.gather(
        close_refund(desk.stage, number, SLIP), retry_refund(desk.stage, number, ACT)
    )

    assert retried is not None
    (row,) = await desk.refunds()
    if row["state"] == "requested":
        assert closed is CloseRefusal.REFUND_UNDER_WAY
    else:
        assert isinstance(closed, Refund)
        assert retried.state is RefundState.SUCCEEDED


async def test_what_the_provider_pays_as_well_is_an_alarm_and_stays_in_suspense(
    desk: Desk, ledger_database: Database
):
    number = await abnormal(desk)
    await close_refund(desk.stage, number, SLIP)

    with capture_logs() as logs:
        statuses = [await tell(desk, number, RefundStatus.SUCCEEDED, f"evt-{n}") for n in range(3)]

    assert statuses == [200, 200, 200]
    told = [line for line in logs if line["event"] == "refund_told"]
    assert [(line["log_level"], line["outcome"]) for line in told] == [
        ("error", "refund_doubled"),
        ("info", "already_applied"),
        ("info", "already_applied"),
    ]
    (row,) = await desk.refunds()
    assert (row["state"], row["by_hand"]) == ("succeeded", "slip-1")
    assert row["doubled_at"] is not None
    facts = await refund_facts(desk)
    assert facts == ["refund_requested", "refund_paid_by_hand", "refund_doubled"]
    (letter,) = await desk.rows("SELECT reason FROM dead_letters WHERE kind = 'callback'")
    assert letter["reason"] == "refund_doubled"
    assert await books(desk, ledger_database) == {
        "suspense.double_refund": PRICE_MINOR,
        "bank.cny": -PRICE_MINOR,
    }


@pytest.mark.parametrize("status", [RefundStatus.ABNORMAL, RefundStatus.CLOSED])
async def test_a_provider_that_refuses_again_doubles_nothing(desk: Desk, status: RefundStatus):
    number = await abnormal(desk)
    await close_refund(desk.stage, number, SLIP)

    assert await tell(desk, number, status, "evt-late") == 200
    (row,) = await desk.refunds()
    assert (row["state"], row["doubled_at"]) == ("succeeded", None)


async def test_a_double_that_waits_to_be_posted_is_counted(desk: Desk, ledger_database: Database):
    number = await abnormal(desk)
    await close_refund(desk.stage, number, SLIP)
    await books(desk, ledger_database)
    await tell(desk, number, RefundStatus.SUCCEEDED, "evt-late")

    equations = await audit_postings(desk.stage.shards, ledger_database)

    assert verdict_of(equations) is Verdict.HOLDS, equations
    await desk.execute("DELETE FROM outbox WHERE kind = 'refund_doubled'")
    lost = await audit_postings(desk.stage.shards, ledger_database)
    assert verdict_of(lost) is not Verdict.HOLDS
