"""Post to a real ledger; violate every rule of the books once on purpose."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from app.kernel.errors import IdempotencyMismatch
from app.settlement import chart
from app.settlement.audit import audit_ledger
from app.settlement.books import Books
from app.settlement.chart import TransferKind
from app.settlement.errors import TransferRefused
from app.settlement.fact import read_fact
from app.settlement.posting import post_facts
from app.settlement.store import post_transfers
from app.settlement.transfer import Transfer, TransferState, ledger_id, resolve

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)
BANK = chart.bank("CNY")
RECEIVABLE = chart.provider_receivable("wechatpay", "CNY")
CLEARING = chart.order_clearing("CNY")
PAYABLE = chart.merchant_payable("m1", "CNY")


@pytest.fixture
def books(ledger_database):
    return Books(ledger_database)


def a_transfer(number="1", **changes):
    transfer = Transfer(
        id=ledger_id("test", number),
        batch_id=ledger_id("batch", number),
        debit=RECEIVABLE,
        credit=CLEARING,
        amount_minor=100,
        kind=TransferKind.CAPTURE,
        business_type="order",
        business_id="A",
        reference="A01",
        effective_at=MOMENT,
    )
    return replace(transfer, **changes)


def the_end_of(pending, state, **changes):
    batch_id = ledger_id("batch", "end")
    return replace(resolve(pending, state, batch_id=batch_id, effective_at=MOMENT), **changes)


async def post(ledger, *transfers):
    async with ledger.transaction() as connection:
        return await post_transfers(connection, transfers)


async def run(ledger, statement, *arguments):
    async with ledger.connection() as connection:
        return await connection.execute(statement, *arguments)


async def balances(books):
    return {line.code: line.balance_minor for line in await books.read_accounts()}


async def broken(books, *invariants):
    """Return what the audit finds: (words, value, counter-examples) of each broken equation."""
    equations = await audit_ledger(books.ledger, live=False)
    return [
        (equation.left, equation.left_value, list(equation.counter_examples))
        for equation in equations
        if equation.holds is False and equation.invariant in invariants
    ]


async def check(books):
    assert await broken(books, "I14") == []


# The worked example of the settlement design -----------------------------------


def capture_fact(merchant=""):
    payload = {
        "order_id": "A",
        "attempt": "A01",
        "provider": "wechatpay",
        "merchant": merchant,
        "amount_minor": 8880,
        "currency": "CNY",
        "captured_at": "2026-11-11T00:00:00Z",
    }
    return read_fact("payment_captured", payload, MOMENT)


def refund_fact(kind):
    payload = {
        "refund_no": "RA01",
        "order_id": "A",
        "attempt": "A01",
        "provider": "wechatpay",
        "merchant": "",
        "amount_minor": 8880,
        "currency": "CNY",
        "suspense": False,
    }
    return read_fact(kind, payload, MOMENT)


async def test_the_worked_example__order_8880_vat_13_percent_fee_53(ledger_database, books):
    await post(ledger_database, *post_facts([capture_fact()], [], 1300))
    assert await balances(books) == {
        "order.clearing": 0,
        "provider.wechatpay.receivable": 8880,
        "revenue.net": 7858,
        "tax.output_vat": 1022,
    }
    await post(
        ledger_database,
        a_transfer("settled", debit=BANK, credit=RECEIVABLE, amount_minor=8827),
        a_transfer("fee", debit=chart.provider_fee("CNY"), credit=RECEIVABLE, amount_minor=53),
    )
    assert await balances(books) == {
        "bank.cny": 8827,
        "expense.provider_fee": 53,
        "order.clearing": 0,
        "provider.wechatpay.receivable": 0,
        "revenue.net": 7858,
        "tax.output_vat": 1022,
    }
    (trial,) = await books.read_trial_balance("CNY")
    assert (trial.debits_minor, trial.credits_minor) == (8880, 8880)
    await check(books)


async def test_the_worked_example__refunded_in_full_leaves_nothing_but_the_receivable(
    ledger_database, books
):
    await post(ledger_database, *post_facts([capture_fact()], [], 1300))
    await post(ledger_database, *post_facts([refund_fact("refund_requested")], [], 1300))
    receivable = (await books.read_accounts())[1]
    assert (receivable.code, receivable.credits_pending) == ("provider.wechatpay.receivable", 8880)
    await post(ledger_database, *post_facts([refund_fact("refund_succeeded")], [], 1300))
    assert set((await balances(books)).values()) == {0}
    assert await broken(books, "I14", "I15") == []


async def test_the_worked_example__a_merchant_withdraws(ledger_database, books):
    await post(ledger_database, *post_facts([capture_fact("m1")], [], 1300))
    commission = a_transfer(
        "commission", debit=PAYABLE, credit=chart.commission_revenue("CNY"), amount_minor=444
    )
    asked = a_transfer(
        "withdrawal",
        debit=PAYABLE,
        credit=BANK,
        amount_minor=8436,
        kind=TransferKind.WITHDRAWAL,
        state=TransferState.PENDING,
    )
    await post(ledger_database, commission, asked)
    await post(ledger_database, the_end_of(asked, TransferState.POST))
    after = await balances(books)
    assert (after["merchant.m1.payable"], after["bank.cny"]) == (0, -8436)
    await check(books)


# Idempotency -----------------------------------------------------------------------


async def test_a_transfer_posted_again_changes_nothing(ledger_database, books):
    assert await post(ledger_database, a_transfer()) == 1
    assert await post(ledger_database, a_transfer()) == 0
    assert await post(ledger_database, a_transfer(), a_transfer("2"), a_transfer("2")) == 1
    assert (await balances(books))["order.clearing"] == 200
    await check(books)


async def test_the_same_id_with_other_content_is_refused_and_nothing_is_written(
    ledger_database, books
):
    await post(ledger_database, a_transfer())
    with pytest.raises(IdempotencyMismatch):
        await post(ledger_database, a_transfer("2"), a_transfer(amount_minor=101))
    with pytest.raises(IdempotencyMismatch):
        await post(ledger_database, a_transfer("3"), a_transfer("3", amount_minor=1))
    assert (await balances(books))["order.clearing"] == 100
    await check(books)


async def test_many_posters_of_the_same_transfers_post_them_once(ledger_database, books):
    transfers = [a_transfer(str(number)) for number in range(40)]
    orders = [transfers[turn:] + transfers[:turn] for turn in range(0, 40, 5)]
    new = await asyncio.gather(*(post(ledger_database, *batch) for batch in orders))
    assert sum(new) == 40
    assert (await balances(books))["order.clearing"] == 4000
    await check(books)


async def test_posters_that_meet_on_the_same_accounts_from_both_sides_all_finish(
    ledger_database, books
):
    there = [[a_transfer(f"a{n}.{i}") for i in range(5)] for n in range(10)]
    back = [
        [a_transfer(f"b{n}.{i}", debit=CLEARING, credit=RECEIVABLE) for i in range(5)]
        for n in range(10)
    ]
    await asyncio.gather(*(post(ledger_database, *batch) for batch in there + back))
    assert set((await balances(books)).values()) == {0}
    await check(books)


# Pending transfers -----------------------------------------------------------------


def a_pending(number="pending"):
    return a_transfer(number, state=TransferState.PENDING)


async def test_a_pending_transfer_is_resolved_once(ledger_database, books):
    pending = a_pending()
    await post(ledger_database, pending, the_end_of(pending, TransferState.VOID))
    with pytest.raises(IdempotencyMismatch):
        await post(ledger_database, the_end_of(pending, TransferState.POST))
    another = the_end_of(pending, TransferState.POST, id=ledger_id("test", "another"))
    with pytest.raises(TransferRefused) as refused:
        await post(ledger_database, another)
    assert refused.value.fields["rule"] == "ledger_transfers_resolved_once"
    await check(books)


@pytest.mark.parametrize(
    "changes",
    [
        {"credit": PAYABLE},
        {"amount_minor": 101},
        {"state": TransferState.VOID, "amount_minor": 99},
    ],
)
async def test_a_resolver_that_does_not_fit_is_refused(ledger_database, changes):
    pending = a_pending()
    await post(ledger_database, pending)
    with pytest.raises(TransferRefused) as refused:
        await post(ledger_database, replace(the_end_of(pending, TransferState.POST), **changes))
    assert refused.value.fields["rule"] == "ledger_transfers_resolver_fits"


async def test_only_a_pending_transfer_can_be_resolved(ledger_database):
    posted = a_transfer()
    await post(ledger_database, posted)
    resolver = the_end_of(a_pending("1"), TransferState.POST)
    with pytest.raises(TransferRefused) as refused:
        await post(ledger_database, resolver)
    assert refused.value.fields["rule"] == "ledger_transfers_resolver_fits"


async def test_a_part_may_be_posted_and_the_rest_goes_back(ledger_database, books):
    pending = a_pending()
    await post(ledger_database, pending)
    await post(ledger_database, the_end_of(pending, TransferState.POST, amount_minor=30))
    (clearing, _) = await books.read_accounts()
    assert (clearing.balance_minor, clearing.credits_pending) == (30, 0)
    await check(books)


# Rules of the database, without our own checks in front ---------------------------------

INSERT = """
INSERT INTO ledger_transfers (id, batch_id, debit_account, credit_account, amount_minor, currency,
    kind, state, pending_id, business_type, business_id, reference, effective_at, request_hash)
SELECT gen_random_uuid(), gen_random_uuid(),
       (SELECT id FROM ledger_accounts WHERE code = $1),
       (SELECT id FROM ledger_accounts WHERE code = $2),
       $3, $4, $5, $6::transfer_state, $7, 'order', $8, '', now(), $9"""
GOOD = {
    "debit": "provider.wechatpay.receivable",
    "credit": "order.clearing",
    "amount": 1,
    "currency": "CNY",
    "kind": "capture",
    "state": "posted",
    "pending": None,
    "business": "A",
    "hash": b"h" * 32,
}


WRONG_TRANSFERS = [
    ({"amount": 0}, "ledger_transfers_amount_positive"),
    ({"amount": -1}, "ledger_transfers_amount_positive"),
    ({"debit": "order.clearing"}, "ledger_transfers_two_accounts"),
    ({"currency": "USD"}, "ledger_transfers_debit_currency"),
    ({"credit": "order.clearing.usd"}, "ledger_transfers_credit_currency"),
    ({"kind": "Some thing"}, "ledger_transfers_kind"),
    ({"state": "void"}, "ledger_transfers_resolver_names_pending"),
    ({"state": "post"}, "ledger_transfers_resolver_names_pending"),
    ({"pending": ledger_id("test", "1")}, "ledger_transfers_resolver_names_pending"),
    ({"state": "post", "pending": ledger_id("no", "one")}, "ledger_transfers_pending_exists"),
    ({"business": ""}, "ledger_transfers_business_id_check"),
    ({"hash": b"short"}, "ledger_transfers_hash_is_sha256"),
]

#   version  transfer             net  rule
WRONG_ENTRIES = """
    0        transfer_id          0    ledger_entries_numbered
    1        transfer_id          0    ledger_entries_one_per_side
    1        transfer_id          1    ledger_entries_add_up
    1        gen_random_uuid()    0    ledger_entries_transfer_id_fkey
"""
INSERT_ENTRY = """
INSERT INTO ledger_entries
SELECT account_id, version + {version}, {transfer}, side, amount_minor, net_before,
       net_after + {net}
FROM ledger_entries"""

#   code            currency  kind       side    rule
WRONG_ACCOUNTS = """
    order.clearing  CNY       liability  credit  ledger_accounts_one_per_code
    new             CNY       liability  debit   ledger_accounts_normal_side_of_kind
    new             CNY       expense    credit  ledger_accounts_normal_side_of_kind
    new             cny       asset      debit   currency_code_check
"""
INSERT_ACCOUNT = """
INSERT INTO ledger_accounts (code, currency, kind, normal_side)
VALUES ('{code}', '{currency}', '{kind}', '{side}')"""


def rows(table):
    return [line.split() for line in table.strip().splitlines()]


async def test_the_database_refuses_a_wrong_transfer(ledger_database):
    dollars = a_transfer(
        "usd",
        debit=chart.provider_receivable("wechatpay", "USD"),
        credit=chart.order_clearing("USD"),
    )
    await post(ledger_database, a_transfer(), dollars)
    for bad, rule in WRONG_TRANSFERS:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
            await run(ledger_database, INSERT, *(GOOD | bad).values())
        assert refused.value.constraint_name == rule


async def test_the_database_refuses_a_wrong_entry(ledger_database):
    await post(ledger_database, a_transfer())
    for version, transfer, net, rule in rows(WRONG_ENTRIES):
        statement = INSERT_ENTRY.format(version=version, transfer=transfer, net=net)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
            await run(ledger_database, statement)
        assert refused.value.constraint_name == rule


async def test_the_database_refuses_a_wrong_account(ledger_database):
    await post(ledger_database, a_transfer())
    for code, currency, kind, side, rule in rows(WRONG_ACCOUNTS):
        statement = INSERT_ACCOUNT.format(code=code, currency=currency, kind=kind, side=side)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
            await run(ledger_database, statement)
        assert refused.value.constraint_name == rule


# Insert-only ----------------------------------------------------------------------------

COUNTERS = [
    "UPDATE ledger_accounts SET debits_posted = debits_posted - 1 WHERE debits_posted > 0",
    "UPDATE ledger_accounts SET version = 0",
]
FORBIDDEN = [
    "UPDATE ledger_transfers SET amount_minor = 1",
    "UPDATE ledger_transfers SET effective_at = now()",
    "DELETE FROM ledger_transfers",
    "TRUNCATE ledger_transfers CASCADE",
    "UPDATE ledger_entries SET amount_minor = 1",
    "DELETE FROM ledger_entries",
    "TRUNCATE ledger_entries",
    "DELETE FROM ledger_accounts",
    "TRUNCATE ledger_accounts CASCADE",
    "UPDATE ledger_accounts SET code = code || '.'",
    "UPDATE ledger_accounts SET currency = 'USD'",
    "UPDATE ledger_accounts SET guard = 'none', kind = 'equity', normal_side = 'credit'",
    *COUNTERS,
]


async def test_not_even_the_owner_changes_the_books(ledger_database, books):
    await post(ledger_database, a_transfer(), a_transfer("2", debit=BANK))
    before = await books.read_accounts()
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.RestrictViolationError):
            await run(ledger_database, statement)
    assert await books.read_accounts() == before
    await check(books)


async def test_the_ledger_role_may_not_even_try(ledger_database):
    async with ledger_database.connection() as connection:
        await connection.execute("SET ROLE doorbuster_ledger")
        for statement in FORBIDDEN[: -len(COUNTERS)]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_ledger_role_can_post(ledger_database, books):
    pending = a_pending()
    async with ledger_database.transaction() as connection:
        await connection.execute("SET LOCAL ROLE doorbuster_ledger")
        end = the_end_of(pending, TransferState.POST)
        assert await post_transfers(connection, [a_transfer(), pending, end]) == 3
    assert (await balances(books))["order.clearing"] == 200
    await check(books)


# Reading --------------------------------------------------------------------------------


async def test_entries_are_read_page_by_page_newest_first(ledger_database, books):
    await post(ledger_database, *(a_transfer(str(number)) for number in range(5)))
    first = await books.read_entries("order.clearing", limit=3)
    rest = await books.read_entries("order.clearing", before=first[-1].version, limit=3)
    assert [entry.version for entry in first + rest] == [5, 4, 3, 2, 1]
    assert (first[0].balance_before_minor, first[0].balance_after_minor) == (400, 500)
    assert await books.read_entries("no.such.account") is None


async def test_accounts_and_trial_balance_by_currency(ledger_database, books):
    yen = a_transfer(
        "yen",
        debit=chart.provider_receivable("wechatpay", "JPY"),
        credit=chart.order_clearing("JPY"),
        amount_minor=7,
    )
    await post(ledger_database, a_transfer(), yen)
    assert [balance.currency for balance in await books.read_trial_balance()] == ["CNY", "JPY"]
    (only,) = await books.read_trial_balance("JPY")
    assert (only.debits_minor, only.credits_minor) == (7, 7)
    assert await books.read_trial_balance("USD") == []
    codes = [line.code for line in await books.read_accounts(currency="JPY")]
    assert codes == ["order.clearing.jpy", "provider.wechatpay.receivable.jpy"]


async def test_what_an_order_left_on_clearing_is_named(ledger_database, books):
    await post(ledger_database, a_transfer())
    assert await broken(books, "I15") == [
        ("orders with money left on clearing accounts", 1, ["A on order.clearing: -100"])
    ]


@pytest.mark.parametrize(
    ("live", "holds"), [(True, [None, True, True]), (False, [False, True, True])]
)
async def test_a_late_payment_is_finished_when_its_refund_is_under_way(
    ledger_database, books, live, holds
):
    suspense = chart.late_payment_suspense("CNY")
    late = a_transfer("late", credit=suspense, kind=TransferKind.LATE_CAPTURE)
    refund = a_transfer(
        "refund",
        debit=suspense,
        credit=RECEIVABLE,
        kind=TransferKind.LATE_REFUND,
        state=TransferState.PENDING,
    )
    judged = []
    for transfer in (late, refund, the_end_of(refund, TransferState.POST)):
        await post(ledger_database, transfer)
        judged.append((await audit_ledger(books.ledger, live=live))[-1].holds)
    assert judged == holds


async def test_the_sums_of_an_order_are_read_per_kind(ledger_database, books):
    await post(ledger_database, *post_facts([capture_fact()], [], 1300), a_pending())
    sums = {line.kind: (line.amount_minor, line.batches) for line in await books.sum_orders(["A"])}
    assert sums == {
        "capture": (8880, 1),
        "recognise_revenue": (7858, 1),
        "recognise_tax": (1022, 1),
    }


# A check that finds nothing must be able to find something ------------------------------


async def test_a_counter_that_was_tampered_with_is_found(ledger_database, books):
    await post(ledger_database, a_transfer())
    await run(
        ledger_database,
        "UPDATE ledger_accounts SET credits_posted = 103 WHERE code = 'order.clearing'",
    )
    assert await broken(books, "I14") == [
        ("sum of debits", 100, []),
        (
            "counters unlike the sum of their entries",
            1,
            ["order.clearing credits_posted: 103, not 100"],
        ),
    ]
    (trial,) = await books.read_trial_balance()
    assert trial.difference_minor == -3


@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM ledger_entries WHERE side = 'debit'",
        "UPDATE ledger_entries SET amount_minor = 9, net_after = -9 WHERE side = 'credit'",
        "UPDATE ledger_entries SET net_before = 5, net_after = 105 WHERE side = 'debit'",
    ],
)
async def test_an_entry_that_was_tampered_with_is_found(ledger_database, books, tampering):
    await post(ledger_database, a_transfer())
    await run(ledger_database, "ALTER TABLE ledger_entries DISABLE TRIGGER ALL")
    await run(ledger_database, tampering)
    examples = [named for *_, named in await broken(books, "I14")]
    assert [str(a_transfer().id)] in examples


async def test_a_receivable_moved_by_something_else_is_found(ledger_database, books):
    await post(ledger_database, a_transfer(kind=TransferKind.COMMISSION))
    assert ("balance", 100, []) in await broken(books, "I15")
