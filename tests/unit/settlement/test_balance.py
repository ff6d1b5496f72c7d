from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settlement import chart
from app.settlement.balance import Balance, fold
from app.settlement.chart import Side, TransferKind
from app.settlement.errors import TransferRefused
from app.settlement.transfer import Transfer, TransferState, resolve

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)
ACCOUNTS = (
    chart.bank("CNY"),
    chart.order_clearing("CNY"),
    chart.merchant_payable("m1", "CNY"),
    chart.net_revenue("CNY"),
)


def open_balances():
    return {
        account.code: Balance(
            account_id=number,
            code=account.code,
            normal_side=account.normal_side,
            guard=account.guard,
        )
        for number, account in enumerate(ACCOUNTS)
    }


def transfer(debit, credit, amount_minor, state=TransferState.POSTED, kind=TransferKind.CAPTURE):
    return Transfer(
        id=uuid4(),
        batch_id=uuid4(),
        debit=debit,
        credit=credit,
        amount_minor=amount_minor,
        kind=kind,
        business_type="order",
        business_id="A",
        reference="A01",
        effective_at=MOMENT,
        state=state,
    )


def end(pending, state):
    return resolve(pending, state, batch_id=pending.batch_id, effective_at=MOMENT)


BANK, CLEARING, PAYABLE, REVENUE = ACCOUNTS


def test_entries_are_chained_and_numbered_per_account():
    balances = open_balances()
    entries = fold(balances, [transfer(BANK, CLEARING, 5), transfer(CLEARING, REVENUE, 3)], {})
    clearing = [entry for entry in entries if entry.account_id == 1]
    assert [(e.version, e.side, e.net_before, e.net_after) for e in clearing] == [
        (1, Side.CREDIT, 0, -5),
        (2, Side.DEBIT, -5, -2),
    ]
    assert balances["order.clearing"].posted == 2


def test_a_pending_transfer_moves_no_money_and_sets_it_aside():
    balances = open_balances()
    entries = fold(balances, [transfer(PAYABLE, BANK, 5, TransferState.PENDING)], {})
    payable = balances[PAYABLE.code]
    assert entries == []
    assert (payable.posted, payable.available, payable.debits_pending) == (0, -5, 5)


@pytest.mark.parametrize(("state", "posted"), [(TransferState.POST, -5), (TransferState.VOID, 0)])
def test_the_end_of_a_pending_transfer_frees_what_was_set_aside(state, posted):
    balances = open_balances()
    pending = transfer(PAYABLE, BANK, 5, TransferState.PENDING)
    fold(balances, [pending, end(pending, state)], {pending.id: 5})
    payable = balances[PAYABLE.code]
    assert (payable.posted, payable.available, payable.debits_pending) == (posted, posted, 0)


def test_a_part_that_is_posted_frees_the_whole():
    balances = open_balances()
    pending = transfer(PAYABLE, BANK, 5, TransferState.PENDING)
    part = replace(end(pending, TransferState.POST), amount_minor=2)
    fold(balances, [pending, part], {pending.id: 5})
    assert (balances[PAYABLE.code].posted, balances[PAYABLE.code].debits_pending) == (-2, 0)


def test_a_withdrawal_beyond_the_balance_is_refused():
    balances = open_balances()
    fold(balances, [transfer(BANK, PAYABLE, 10)], {})
    asked = transfer(PAYABLE, BANK, 10, TransferState.PENDING, TransferKind.WITHDRAWAL)
    fold(balances, [asked], {})
    one_more = transfer(PAYABLE, BANK, 1, TransferState.PENDING, TransferKind.WITHDRAWAL)
    with pytest.raises(TransferRefused):
        fold(balances, [one_more], {})


def test_a_refund_may_take_a_merchant_below_zero_and_its_withdrawal_is_still_paid():
    balances = open_balances()
    fold(balances, [transfer(BANK, PAYABLE, 10)], {})
    asked = transfer(PAYABLE, BANK, 10, TransferState.PENDING, TransferKind.WITHDRAWAL)
    fold(balances, [asked, transfer(PAYABLE, CLEARING, 4)], {})
    fold(balances, [end(asked, TransferState.POST)], {asked.id: 10})
    assert balances[PAYABLE.code].posted == -4


pairs = st.permutations(ACCOUNTS).map(lambda accounts: accounts[:2])


@given(moves=st.lists(st.tuples(pairs, st.integers(1, 10**12)), max_size=20))
def test_whatever_is_posted_the_sum_over_all_accounts_is_zero(moves):
    balances = open_balances()
    fold(balances, [transfer(*pair, amount) for pair, amount in moves], {})
    assert sum(balance.net for balance in balances.values()) == 0
    assert sum(balance.version for balance in balances.values()) == 2 * len(moves)
