"""
In which order the merchant accounts of one provider are tried; pure.

Eligibility leaves out what may not take the payment. Of the rest, what is up comes
before what is down; among what is up an explicit rule leads, then the account that
a split of the volume gives the order to, then the best share of good results, then
the lowest cost. What is down is the fallback, in the order of the settings. Equal
routes are told apart by a hash of the order, so the same order gets the same answer.

Source:
    docs/PAYMENTS.md §4.8.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec

from app.kernel.money import AMOUNT_MINOR_MAX
from app.payments.provider import Product
from app.payments.routing import RouteWish

_BPS: Final = 10_000  # basis points in the whole
_BOUNDS: Final = "amount_minor_min is above amount_minor_max"

_Minor: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MINOR_MAX)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]


class RouteTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one merchant account may take and what it costs: a document of the settings."""

    provider: _Name
    account: Annotated[str, msgspec.Meta(max_length=32)] = ""  # empty: the only one
    disabled: bool = False
    products: tuple[Product, ...] = ()  # the scenes it serves; empty: all that it offers
    currencies: tuple[_Currency, ...] = ()  # empty: any
    amount_minor_min: _Minor = 0
    amount_minor_max: _Minor = AMOUNT_MINOR_MAX
    daily_minor_max: _Minor = AMOUNT_MINOR_MAX  # opened by one process in one day
    weight: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0  # its part of the volume
    cost_bps: Annotated[int, msgspec.Meta(ge=0, le=_BPS)] = 0
    cost_fixed_minor: _Minor = 0
    cost_minor_min: _Minor = 0
    cost_minor_max: _Minor = AMOUNT_MINOR_MAX

    def __post_init__(self) -> None:
        assert self.amount_minor_min <= self.amount_minor_max, _BOUNDS
        assert self.cost_minor_min <= self.cost_minor_max, "cost_minor_min is above cost_minor_max"

    def cost_minor(self, amount_minor: int) -> int:
        """Say what a payment costs, half a minor unit rounded up; never negative."""
        share = (amount_minor * self.cost_bps * 2 + _BPS) // (2 * _BPS)
        return min(max(share + self.cost_fixed_minor, self.cost_minor_min), self.cost_minor_max)


class RouteRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which accounts come first, and for what: a document of the settings."""

    provider: _Name
    accounts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]  # best first
    merchant: _Name | None = None  # None: any
    sale: _Name | None = None
    amount_minor_min: _Minor = 0
    amount_minor_max: _Minor = AMOUNT_MINOR_MAX

    def __post_init__(self) -> None:
        assert self.amount_minor_min <= self.amount_minor_max, _BOUNDS
        assert len(set(self.accounts)) == len(self.accounts), "accounts names one twice"

    def fits(self, wish: RouteWish) -> bool:
        return (
            self.provider == wish.provider
            and self.merchant in (None, wish.merchant)
            and self.sale in (None, wish.sale)
            and self.amount_minor_min <= wish.amount_minor <= self.amount_minor_max
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One account as it stands this moment."""

    account: str
    products: frozenset[Product]
    terms: RouteTerms
    is_shut: bool  # its breaker is open
    spent_minor: int  # of its daily quota
    failures: int  # among its last results for this product
    is_down: bool  # too many of them


def is_eligible(candidate: Candidate, wish: RouteWish) -> bool:
    """Whether an account may take a payment at all."""
    terms = candidate.terms
    return (
        not terms.disabled
        and not candidate.is_shut
        and wish.product in candidate.products
        and (not terms.products or wish.product in terms.products)
        and (not terms.currencies or wish.currency in terms.currencies)
        and terms.amount_minor_min <= wish.amount_minor <= terms.amount_minor_max
        and candidate.spent_minor + wish.amount_minor <= terms.daily_minor_max
    )


def rank_routes(
    candidates: Sequence[Candidate],
    wish: RouteWish,
    rules: Sequence[RouteRule],
    explore_percent: int,
) -> list[str]:
    """
    Return the accounts that may be tried, best first; none if all are shut.

    Args:
        candidates: every account at the provider, in the order of the settings.
        wish: what the route is for.
        rules: the first that fits counts.
        explore_percent: of the orders that no rule names an account for, how many
            go first to an account drawn by their hash, whatever its results: or
            nobody would learn that one is well again.
    """
    eligible = [one for one in candidates if is_eligible(one, wish)]
    up = [one for one in eligible if not one.is_down]
    named = _named_by_rule(up, wish, rules)
    explored = [] if named else _explored(eligible, wish, explore_percent)
    split = _split(up, wish)
    down = [one for one in eligible if one.is_down]
    order = [*named, *explored, *split, *sorted(up, key=lambda one: _grade(one, wish)), *down]
    return list(dict.fromkeys(one.account for one in order))


def _named_by_rule(
    up: Sequence[Candidate], wish: RouteWish, rules: Sequence[RouteRule]
) -> list[Candidate]:
    accounts = next((rule.accounts for rule in rules if rule.fits(wish)), ())
    return [one for name in accounts for one in up if one.account == name]


def _explored(
    eligible: Sequence[Candidate], wish: RouteWish, explore_percent: int
) -> list[Candidate]:
    """Draw the account that an exploring order goes to first; most orders do not explore."""
    if not eligible or draw(wish.number, "explore") % 100 >= explore_percent:
        return []
    return [eligible[draw(wish.number, "explored") % len(eligible)]]


def _split(up: Sequence[Candidate], wish: RouteWish) -> list[Candidate]:
    """Find the account whose part of the volume an order belongs to; none without weights."""
    total = sum(one.terms.weight for one in up)
    if total == 0:
        return []
    point = draw(wish.number, "split") % total
    ends = itertools.accumulate(one.terms.weight for one in up)
    return [next(one for one, end in zip(up, ends, strict=True) if point < end)]


def _grade(candidate: Candidate, wish: RouteWish) -> tuple[int, int, int]:
    """Sort by failures, then cost, then a hash that is stable for the order."""
    cost_minor = candidate.terms.cost_minor(wish.amount_minor)
    return candidate.failures, cost_minor, draw(wish.number, candidate.account)


def draw(number: str, purpose: str) -> int:
    """Turn an order into a number that is the same on every process, 0..2^64-1."""
    hashed = hashlib.blake2b(f"{purpose}\n{number}".encode(), digest_size=8)
    return int.from_bytes(hashed.digest())
