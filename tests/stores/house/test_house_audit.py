"""The audit of the house: clean after every way to pay, and broken by every lie."""

import pytest

from app.settlement.audit import audit_ledger
from app.settlement.house.audit import audit_house
from tests.stores.house.conftest import PRICE_MINOR


async def live(scene):
    """Pay by each way, and leave one line in suspense and one sent back."""
    await scene.top_up(20_000)
    await scene.start("balance")
    _, offline = await scene.start("offline")
    await scene.house.confirm_offline(offline.payment.payment_id, PRICE_MINOR, "CNY", scene.proof())
    _, transfer = await scene.start("transfer")
    code = transfer.payment.action["params"]["remittance_code"]
    await scene.bring(
        scene.line("bank-1", PRICE_MINOR, code),
        scene.line("bank-2", 1, "nobody's"),
        scene.line("bank-3", 2, "nobody's"),
    )
    await scene.bank.send_back("bank-3", "return-3", scene.proof().act())


async def test_everything_adds_up_while_facts_still_wait_and_when_they_are_posted(scene):
    await live(scene)
    assert all(one.holds for one in await audit_house(scene.ledger))
    await scene.books()
    assert all(one.holds for one in await audit_house(scene.ledger))
    judged = await audit_ledger(scene.ledger, live=False)
    assert all(one.holds for one in judged), [one for one in judged if not one.holds]


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("UPDATE balances SET balance_minor = balance_minor + 1", "sum of balances"),
        ("UPDATE balances SET entries = entries + 1", "balances unlike their entries"),
        ("UPDATE bank_lines SET amount_minor = 7 WHERE reference = 'bank-2'", "lines in suspense"),
        ("UPDATE bank_lines SET amount_minor = 7 WHERE reference = 'bank-3'", "imported"),
        (
            "UPDATE house_payments SET reference = 'bank-9' WHERE provider = 'transfer'",
            "matches without line or payment",
        ),
    ],
)
async def test_a_lie_in_any_row_is_found(scene, lie, told):
    await live(scene)
    await scene.rows(lie)
    broken = [one for one in await audit_house(scene.ledger) if one.holds is False]
    assert any(told in str(one) for one in broken), broken
