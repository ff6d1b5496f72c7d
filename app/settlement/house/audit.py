"""
Judge the house: balances and bank lines, each against its entries and the ledger.

All of it is one transaction where it happens, so every equation holds at every
instant of one snapshot, while a sale runs too.
"""

from typing import Final

from app.kernel.equation import Equation, equal, none_of
from app.orders.audit_store import fetch_all, snapshot
from app.settlement.house import audit_store as store
from app.storage.shards import Database

EXAMPLES_MAX: Final = 100


async def audit_house(ledger: Database) -> list[Equation]:
    """
    Judge I14 of balances and I15 of bank lines.

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    async with snapshot(ledger) as connection:
        balances = await fetch_all(connection, store.SELECT_BALANCE_SUMS, "stored_value")
        unlike = await fetch_all(connection, store.SELECT_BALANCE_BREAKS, EXAMPLES_MAX)
        waiting = await fetch_all(connection, store.SELECT_LINE_SUMS, "suspense.bank_transfer")
        imports = await fetch_all(connection, store.SELECT_IMPORT_SUMS)
        unmatched = await fetch_all(connection, store.SELECT_MATCH_BREAKS, EXAMPLES_MAX)
    equations = []
    for row in balances:
        subject = f"balances {row['currency']}"
        stored = ("sum of balances", row["stored"])
        equations.append(equal("I14", subject, stored, ("sum of entries", row["entered"])))
        equations.append(equal("I14", subject, stored, ("owed by the ledger", row["owed"])))
    equations += [
        equal(
            "I15",
            f"bank lines {row['currency']}",
            ("lines in suspense", row["waiting"]),
            ("suspense of the ledger", row["held"]),
        )
        for row in waiting
    ]
    equations += [
        equal(
            "I15",
            f"bank lines {row['currency']}",
            ("imported", row["imported"]),
            ("posted as imported", row["posted"]),
        )
        for row in imports
    ]
    told = [f"{row['id']}: {row['balance_minor']}, not {row['entered']}" for row in unlike]
    lines = [str(row["example"]) for row in unmatched]
    return [
        *equations,
        none_of("I14", "balances", "balances unlike their entries", len(told), told),
        none_of("I15", "bank lines", "matches without line or payment", len(lines), lines),
    ]
