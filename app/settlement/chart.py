"""
The chart of accounts: which accounts there are, and on which side each grows.

An account is named by its parts (`merchant.<id>.payable`) and holds one currency.
Codes are those of docs/SETTLEMENT.md §2 for the home currency; any other currency is
told at the end (`order.clearing.usd`), so that a code alone names one account.
Accounts come into being with their first transfer.
"""

from enum import StrEnum
from typing import Final, NamedTuple

HOME_CURRENCY: Final = "CNY"
MERCHANT_LENGTH_MAX: Final = 64


class AccountKind(StrEnum):
    """The five kinds of double entry."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    EXPENSE = "expense"
    EQUITY = "equity"


class Side(StrEnum):
    """The two sides of a transfer."""

    DEBIT = "debit"
    CREDIT = "credit"


class Guard(StrEnum):
    """
    Whether guarded transfers may leave an account below zero.

    NO_NEGATIVE stops withdrawals only: a refund or a fee is a fact, and facts
    are posted in whatever order they come.
    """

    NONE = "none"
    NO_NEGATIVE = "no_negative"


class TransferKind(StrEnum):
    """What a transfer stands for."""

    CAPTURE = "capture"
    RECOGNISE_PAYABLE = "recognise_payable"
    RECOGNISE_REVENUE = "recognise_revenue"
    RECOGNISE_TAX = "recognise_tax"
    REFUND = "refund"
    REVERSE_PAYABLE = "reverse_payable"
    REVERSE_REVENUE = "reverse_revenue"
    REVERSE_TAX = "reverse_tax"
    LATE_CAPTURE = "late_capture"
    LATE_REFUND = "late_refund"
    DOUBLE_REFUND = "double_refund"
    PROVIDER_SETTLEMENT = "provider_settlement"
    PROVIDER_FEE = "provider_fee"
    PROVIDER_FEE_RETURN = "provider_fee_return"
    PROVIDER_SETTLEMENT_RETURN = "provider_settlement_return"
    TOP_UP = "top_up"
    BANK_LINE = "bank_line"
    BANK_LINE_RETURN = "bank_line_return"
    COMMISSION = "commission"
    WITHDRAWAL = "withdrawal"


GUARDED_KINDS: Final = frozenset({TransferKind.WITHDRAWAL})
"""Kinds that may not take an account with a guard below zero."""

CLEARING_CODES: Final = ("order.clearing%", "refund.clearing%")
"""LIKE patterns of the accounts that every fact leaves at zero for its order."""

SUSPENSE_CODES: Final = ("suspense.late_payment%",)
"""LIKE patterns of the accounts that return to zero when their order is finished."""

_DEBIT_KINDS: Final = frozenset({AccountKind.ASSET, AccountKind.EXPENSE})


class Account(NamedTuple):
    """One account of the chart."""

    code: str
    currency: str
    kind: AccountKind
    guard: Guard = Guard.NONE

    @property
    def normal_side(self) -> Side:
        """The side on which the account grows."""
        return Side.DEBIT if self.kind in _DEBIT_KINDS else Side.CREDIT


def bank(currency: str) -> Account:
    """Return the account of our own money at the bank."""
    return Account(f"bank.{currency.lower()}", currency, AccountKind.ASSET)


def provider_receivable(provider: str, currency: str) -> Account:
    """Return what a provider has taken for us and not yet paid out."""
    return _account(f"provider.{provider}.receivable", currency, AccountKind.ASSET)


def provider_fee(currency: str) -> Account:
    """Return what providers have charged."""
    return _account("expense.provider_fee", currency, AccountKind.EXPENSE)


def order_clearing(currency: str) -> Account:
    """Return money that was paid and not yet recognised; zero per order."""
    return _account("order.clearing", currency, AccountKind.LIABILITY)


def refund_clearing(currency: str) -> Account:
    """Return money on its way back to shoppers; zero per refund that ended."""
    return _account("refund.clearing", currency, AccountKind.ASSET)


def late_payment_suspense(currency: str) -> Account:
    """Return money that came for orders that could not take it; zero once refunded."""
    return _account("suspense.late_payment", currency, AccountKind.LIABILITY)


def double_refund_suspense(currency: str) -> Account:
    """Return what shoppers got twice, by hand and by a provider; theirs to give back."""
    return _account("suspense.double_refund", currency, AccountKind.ASSET)


def bank_transfer_suspense(currency: str) -> Account:
    """Return money of bank lines that pay for nothing yet; see house.rules."""
    return _account("suspense.bank_transfer", currency, AccountKind.LIABILITY)


def stored_value(currency: str) -> Account:
    """Return what shoppers have put in and not spent: the sum of their balances."""
    return _account("stored_value", currency, AccountKind.LIABILITY)


def merchant_payable(merchant: str, currency: str) -> Account:
    """Return what is owed to a merchant; only withdrawals are held to its balance."""
    assert 0 < len(merchant) <= MERCHANT_LENGTH_MAX
    code = f"merchant.{merchant}.payable"
    return _account(code, currency, AccountKind.LIABILITY, Guard.NO_NEGATIVE)


def net_revenue(currency: str) -> Account:
    """Return revenue from our own goods, tax apart."""
    return _account("revenue.net", currency, AccountKind.INCOME)


def commission_revenue(currency: str) -> Account:
    """Return revenue from merchants' sales."""
    return _account("revenue.commission", currency, AccountKind.INCOME)


def output_vat(currency: str) -> Account:
    """Return value-added tax owed on our own goods."""
    return _account("tax.output_vat", currency, AccountKind.LIABILITY)


def _account(name: str, currency: str, kind: AccountKind, guard: Guard = Guard.NONE) -> Account:
    code = name if currency == HOME_CURRENCY else f"{name}.{currency.lower()}"
    return Account(code, currency, kind, guard)
