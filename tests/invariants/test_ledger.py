"""
The ledger against a model: whatever order facts come in, however often, and wherever the poster
dies, the books end as the orders say.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.kernel.errors import LedgerUnavailable, ShardUnavailable
from app.settlement.audit import audit_ledger
from app.settlement.books import Books
from app.settlement.outbox import LEDGER_KINDS
from app.settlement.poster import PostReport, SettlementSettings, post_once
from app.storage.shards import Database, DatabaseSettings

SETTINGS = SettlementSettings(batch_facts_max=4)
ROOMY = SettlementSettings()

INSERT_FACT = "INSERT INTO outbox (kind, business_id, payload) VALUES ($1, $2, $3)"
TELL_AGAIN = "UPDATE outbox SET done_at = NULL WHERE id % $1 = 0 AND done_at IS NOT NULL"
COUNT_WAITING = "SELECT count(*) FROM outbox WHERE done_at IS NULL"
SELECT_LETTERS = "SELECT kind::text, reason, detail FROM dead_letters ORDER BY id"

# A server that goes down exactly when the shard's commit comes: the ledger has
# committed by then.
DIE_AT_COMMIT = """
CREATE TABLE dying (now boolean NOT NULL);
INSERT INTO dying VALUES (false);
CREATE FUNCTION die_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT now FROM dying) THEN
        RAISE EXCEPTION 'the server goes down' USING ERRCODE = 'admin_shutdown';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER die_at_commit AFTER UPDATE ON outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die_at_commit()"""
FORGET_SHARD = "TRUNCATE outbox, dead_letters"
FORGET_LEDGER = """
SET session_replication_role = replica;
TRUNCATE ledger_entries, ledger_transfers, ledger_accounts;
RESET session_replication_role"""


@dataclass(frozen=True)
class RefundCase:
    number: str
    amount_minor: int
    end: str | None  # how it ended: succeeded, closed, or not yet


@dataclass(frozen=True)
class OrderCase:
    order_id: str
    merchant: str
    amount_minor: int
    late: bool
    refunds: tuple[RefundCase, ...]

    def facts(self):
        """Return what the stages before tell of this order: (kind, business id, payload)."""
        told = {
            "order_id": self.order_id,
            "attempt": f"{self.order_id}01",
            "provider": "sandbox",
            "merchant": self.merchant,
            "currency": "CNY",
        }
        captured = told | {"amount_minor": self.amount_minor, "sale": 1}
        captured |= {"captured_at": "2026-11-11T00:00:00Z", "refund_no": f"R{self.order_id}"}
        yield "late_payment" if self.late else "payment_captured", told["attempt"], captured
        for refund in self.refunds:
            asked = told | {
                "refund_no": refund.number,
                "amount_minor": refund.amount_minor,
                "suspense": self.late,
            }
            yield "refund_requested", refund.number, asked
            if refund.end is not None:
                yield f"refund_{refund.end}", refund.number, asked

    @property
    def refunded_minor(self):
        return sum(r.amount_minor for r in self.refunds if r.end == "succeeded")

    @property
    def is_forgotten(self):
        """Late, with money left that nobody is refunding."""
        return self.late and not self.waiting_minor and self.amount_minor > self.refunded_minor

    @property
    def waiting_minor(self):
        return sum(r.amount_minor for r in self.refunds if r.end is None)


@st.composite
def order_cases(draw, number):
    amount_minor = draw(st.integers(1, 20_000))
    refunds, left = [], amount_minor
    for ordinal in range(draw(st.integers(0, 4))):
        if left == 0:
            break
        part = draw(st.one_of(st.just(left), st.integers(1, left)))
        end = draw(st.sampled_from(["succeeded", "succeeded", "closed", None]))
        refunds.append(RefundCase(f"R{number}x{ordinal}", part, end))
        left -= 0 if end == "closed" else part
    merchant = draw(st.sampled_from(["", "m1", "m2"]))
    late = draw(st.booleans())
    return OrderCase(f"A{number}", merchant, amount_minor, late, tuple(refunds))


@st.composite
def histories(draw):
    """Return orders, and their facts in any order with what befalls the poster in between."""
    count = draw(st.integers(1, 5))
    orders = [draw(order_cases(number)) for number in range(count)]
    facts = [(n % 2, *fact) for n, order in enumerate(orders) for fact in order.facts()]
    events = ["nothing", "nothing", "post", "race", "die", "tell_again"]
    shuffled = draw(st.permutations(facts))
    return orders, [(fact, draw(st.sampled_from(events))) for fact in shuffled]


def tax(gross_minor):
    """The tax in a price at 13 %, by the schoolbook and not by the code under test."""
    return gross_minor - round(gross_minor / 1.13)


def model(orders):
    """Return code -> balance, without the zeroes, as the orders alone say it must be."""
    books = Counter()
    for order in orders:
        paid, refunded = order.amount_minor, order.refunded_minor
        books["provider.sandbox.receivable"] += paid - refunded
        if order.late:
            books["suspense.late_payment"] += paid - refunded
        elif order.merchant:
            books[f"merchant.{order.merchant}.payable"] += paid - refunded
        else:
            kept_tax = tax(paid) - tax(refunded)
            books["tax.output_vat"] += kept_tax
            books["revenue.net"] += paid - refunded - kept_tax
    return {code: balance for code, balance in books.items() if balance}


class Rig:
    """The shards and the ledger of one test, and what may befall the poster."""

    def __init__(self, shards, ledger):
        self.shards = shards
        self.ledger = ledger
        self.books = Books(ledger)

    async def prepare(self):
        await self.on_shards(DIE_AT_COMMIT)

    async def forget(self):
        await self.on_shards(FORGET_SHARD)
        async with self.ledger.connection() as connection:
            await connection.execute(FORGET_LEDGER)

    async def on_shards(self, statement, *arguments):
        for shard in self.shards.all:
            async with shard.connection() as connection:
                await connection.execute(statement, *arguments)

    async def tell(self, place, kind, business_id, payload):
        async with self.shards.all[place].connection() as connection:
            await connection.execute(INSERT_FACT, kind, business_id, payload)

    async def nothing(self):
        pass

    async def post(self, limits=SETTINGS):
        return await post_once(self.shards, self.ledger, limits)

    async def race(self):
        await asyncio.gather(*(self.post() for _ in range(3)))

    async def die(self):
        waiting = await self.waiting()
        await self.on_shards("UPDATE dying SET now = true")
        if waiting:
            with pytest.raises(ShardUnavailable):
                await self.post()
        await self.on_shards("UPDATE dying SET now = false")
        assert await self.waiting() == waiting

    async def tell_again(self):
        await self.on_shards(TELL_AGAIN, 2)

    async def waiting(self):
        count = 0
        for shard in self.shards.all:
            async with shard.connection() as connection:
                count += await connection.fetchval(COUNT_WAITING)
        return count

    async def letters(self):
        found = []
        for shard in self.shards.all:
            async with shard.connection() as connection:
                found += await connection.fetch(SELECT_LETTERS)
        return found

    async def finish(self):
        while await self.waiting():
            await self.post()

    async def balances(self):
        lines = await self.books.read_accounts()
        return {line.code: line.balance_minor for line in lines if line.balance_minor}

    async def broken(self):
        """Return the counter-examples of every equation of the audit that does not hold."""
        equations = await audit_ledger(self.ledger, live=False)
        return [
            example
            for equation in equations
            if not equation.holds
            for example in equation.counter_examples or (equation.left,)
        ]


@pytest.fixture
async def rig(shards, ledger_database):
    made = Rig(shards, ledger_database)
    await made.prepare()
    return made


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories())
async def test_the_books_end_as_the_orders_say(rig, history):
    orders, steps = history
    await rig.forget()
    for fact, event in steps:
        await rig.tell(*fact)
        await getattr(rig, event)()
    await rig.finish()
    assert await rig.letters() == []
    assert await rig.balances() == model(orders)
    forgotten = sorted(order.order_id for order in orders if order.is_forgotten)
    assert [name.split()[0] for name in await rig.broken()] == forgotten
    receivables = {line.code: line for line in await rig.books.read_accounts()}
    waiting_minor = receivables["provider.sandbox.receivable"].credits_pending
    assert waiting_minor == sum(order.waiting_minor for order in orders)


def some_orders(count):
    """Return orders of our own and of a merchant's goods, every second one refunded in part."""
    return [
        OrderCase(
            f"A{number}",
            merchant="m1" if number % 3 else "",
            amount_minor=8880,
            late=False,
            refunds=(RefundCase(f"R{number}", 50, "succeeded"),) if number % 2 else (),
        )
        for number in range(count)
    ]


async def tell_all(rig, orders):
    facts = [(n % 2, *fact) for n, order in enumerate(orders) for fact in order.facts()]
    for fact in facts:
        await rig.tell(*fact)
    return len(facts)


async def test_two_posters_at_once_post_each_fact_once(rig):
    orders = some_orders(60)
    told = await tell_all(rig, orders)
    reports = await asyncio.gather(*(rig.post() for _ in range(40)))
    await rig.finish()
    assert sum(report.facts_posted for report in reports) <= told
    assert await rig.balances() == model(orders)
    assert await rig.broken() == []


async def test_a_pass_says_what_it_did_and_the_next_finds_nothing(rig):
    await tell_all(rig, [OrderCase("A", "m1", 8880, late=False, refunds=())])
    assert await rig.post() == PostReport(facts_posted=1, transfers_new=2)
    assert await rig.post() == PostReport()


async def test_a_fact_that_cannot_be_read_is_parked_and_stops_nobody(rig):
    good = OrderCase("A", "m1", 8880, late=False, refunds=())
    await rig.tell(0, "payment_captured", "bad", {"order_id": "B", "amount_minor": -1})
    await tell_all(rig, [good])
    assert await rig.post() == PostReport(facts_posted=1, facts_parked=1, transfers_new=2)
    (letter,) = await rig.letters()
    assert (letter["kind"], letter["reason"]) == ("ledger", "UnreadableFact")
    assert letter["detail"]["business_id"] == "bad"
    assert await rig.waiting() == 0


async def test_of_two_facts_that_contradict_each_other_the_second_is_parked(rig):
    order = OrderCase("A", "m1", 8880, late=False, refunds=(RefundCase("R1", 5, "succeeded"),))
    facts = [*order.facts()]
    closed = ("refund_closed", *facts[-1][1:])
    for fact in (*facts, closed):
        await rig.tell(0, *fact)
    report = await rig.post(ROOMY)
    assert (report.facts_posted, report.facts_parked) == (3, 1)
    (letter,) = await rig.letters()
    assert letter["reason"] == "IdempotencyMismatch"
    assert await rig.balances() == model([order])
    assert await rig.broken() == []


async def test_a_capture_told_with_another_amount_is_parked(rig):
    order = OrderCase("A", "m1", 8880, late=False, refunds=())
    await tell_all(rig, [order])
    await rig.post()
    ((kind, _, payload),) = order.facts()
    await rig.tell(1, kind, "another", payload | {"amount_minor": 8881})
    assert (await rig.post()).facts_parked == 1
    assert await rig.balances() == model([order])


async def test_a_refund_that_ended_before_anybody_heard_of_it_is_posted(rig):
    order = OrderCase("A", "", 8880, late=False, refunds=(RefundCase("R1", 5, "succeeded"),))
    for fact in reversed([*order.facts()]):
        await rig.tell(0, *fact)
        assert (await rig.post()).facts_posted == 1
    assert await rig.balances() == model([order])
    assert await rig.broken() == []


async def test_facts_of_others_and_facts_not_yet_due_stay_where_they_are(rig):
    order = OrderCase("A", "m1", 8880, late=False, refunds=())
    await rig.tell(0, "order_shipped", "A", {})
    await tell_all(rig, [order])
    later = "UPDATE outbox SET next_try_at = now() + interval '1 hour' WHERE kind = ANY ($1)"
    await rig.on_shards(later, list(LEDGER_KINDS))
    assert await rig.post() == PostReport()
    assert await rig.waiting() == 2


async def test_a_ledger_that_is_away_costs_nothing_but_time(rig):
    order = OrderCase("A", "m1", 8880, late=False, refunds=())
    await tell_all(rig, [order])
    away = Database("postgresql://nobody@127.0.0.1:1/ledger", DatabaseSettings())
    with pytest.raises(LedgerUnavailable):
        await post_once(rig.shards, away, SETTINGS)
    assert await rig.waiting() == 1
    await rig.finish()
    assert await rig.balances() == model([order])


async def test_a_shard_that_is_away_keeps_no_other_waiting(rig):
    orders = [OrderCase(f"A{n}", "m1", 8880, late=False, refunds=()) for n in range(2)]
    await tell_all(rig, orders)
    async with rig.shards.all[0].connection() as connection:
        await connection.execute("UPDATE dying SET now = true")
    with pytest.raises(ShardUnavailable):
        await rig.post()
    assert await rig.waiting() == 1
