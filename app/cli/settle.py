"""`doorbuster settle …`: read the books."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.table import Table

from app.cli.exits import Exit
from app.cli.output import print_json, results
from app.cli.stores import DATABASE, run_or_leave
from app.embedded.run_file import read_run_file
from app.kernel.money import EXPONENTS, Money
from app.settings import read_settings
from app.settlement.books import AccountLine, Books, TrialBalance
from app.settlement.routes import (
    AccountList,
    TrialBalanceList,
    account_view,
    trial_balance_view,
)
from app.storage.shards import Database

T = TypeVar("T")

ACCOUNTS_AT_ONCE: Final = 1_000


def _ledger_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command say which ledger it reads."""
    of_data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".doorbuster"),
        show_default=True,
        help="Of a running `doorbuster up`.",
    )
    of_url = click.option(
        "--ledger-url",
        metavar="U",
        help="Look at this ledger database instead.",
    )
    return of_data_dir(of_url(command))


@click.group()
def settle() -> None:
    """Read the books: who is owed what, and the proof."""


@settle.command("trial-balance")
@click.option("--currency", metavar="CUR", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@_ledger_options
def trial_balance(
    data_dir: Path, ledger_url: str | None, currency: str | None, *, as_json: bool
) -> None:
    """Sum all accounts of each currency; exit 3 unless debits equal credits."""
    balances = _read(data_dir, ledger_url, lambda books: books.read_trial_balance(currency))
    if as_json:
        _print_document(TrialBalanceList([trial_balance_view(balance) for balance in balances]))
    else:
        _print_trial_balances(balances)
    if any(balance.difference_minor for balance in balances):
        sys.exit(Exit.BROKEN)


@settle.command("accounts")
@click.option("--currency", metavar="CUR", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@_ledger_options
def accounts(
    data_dir: Path, ledger_url: str | None, currency: str | None, *, as_json: bool
) -> None:
    """List the accounts with their balances."""
    lines = _read(data_dir, ledger_url, lambda books: _read_all_accounts(books, currency))
    if as_json:
        _print_document(AccountList([account_view(line) for line in lines], None))
    else:
        _print_accounts(lines)


def _read(data_dir: Path, ledger_url: str | None, ask: Callable[[Books], Awaitable[T]]) -> T:
    """Open the ledger, and no other store, ask, close it."""

    async def asked() -> T:
        url = ledger_url or read_settings().postgres.ledger_url or read_run_file(data_dir).ledger
        ledger = Database(url, DATABASE)
        try:
            return await ask(Books(ledger))
        finally:
            await ledger.close()

    return run_or_leave(asked)


async def _read_all_accounts(books: Books, currency: str | None) -> list[AccountLine]:
    lines: list[AccountLine] = []
    while True:
        page = await books.read_accounts(
            currency=currency, after=lines[-1].code if lines else "", limit=ACCOUNTS_AT_ONCE
        )
        lines += page
        if len(page) < ACCOUNTS_AT_ONCE:
            return lines


def _print_document(document: Any) -> None:  # noqa: ANN401  whatever msgspec encodes
    print_json(msgspec.to_builtins(document))


def _print_trial_balances(balances: Sequence[TrialBalance]) -> None:
    console = results()
    if not balances:
        console.print("The books are empty.")
    for balance in balances:
        table = Table("account", title=f"Trial balance {balance.currency}", show_footer=True)
        table.columns[0].footer = "sum" if not balance.difference_minor else "sum: DOES NOT BALANCE"
        for name, amount_minor in (
            ("debit", balance.debits_minor),
            ("credit", balance.credits_minor),
        ):
            table.add_column(name, _amount(amount_minor, balance.currency), justify="right")
        for line in balance.lines:
            sides = (line.debit_minor, line.credit_minor)
            amounts = (_amount(side, balance.currency) if side else "" for side in sides)
            table.add_row(line.code, *amounts)
        console.print(table)


def _print_accounts(lines: Sequence[AccountLine]) -> None:
    table = Table("account", "kind", "grows on")
    for name in ("balance", "pending debits", "pending credits", "entries"):
        table.add_column(name, justify="right")
    for line in lines:
        amounts = (line.balance_minor, line.debits_pending, line.credits_pending)
        table.add_row(
            line.code,
            line.kind,
            line.normal_side,
            *(_amount(amount, line.currency) for amount in amounts),
            str(line.version),
        )
    results().print(table)


def _amount(amount_minor: int, currency: str) -> str:
    """Write an amount for a person; a currency we do not sell in stays in minor units."""
    if currency not in EXPONENTS:
        return f"{amount_minor} {currency}"
    return str(Money(amount_minor, currency))
