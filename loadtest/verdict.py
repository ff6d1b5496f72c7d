"""
What a run comes to: PASS, FAIL, BROKEN or VOID, and why. Pure.

A broken invariant outweighs everything. A run that could not be judged, or that
measured nothing, is VOID: neither good nor bad news.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.kernel.equation import Equation, Verdict, verdict_of
from loadtest.checks import (
    CONFIRMED_STATES,
    LIVE_STATES,
    MISSING,
    PAID_STATES,
    OrderDocument,
    refunds,
)
from loadtest.history import History


class Grade(StrEnum):
    """What a whole run comes to."""

    PASS = "PASS"  # noqa: S105  not a password
    FAIL = "FAIL"
    BROKEN = "BROKEN"
    VOID = "VOID"


EXIT_CODES: Final = {Grade.PASS: 0, Grade.FAIL: 1, Grade.BROKEN: 3, Grade.VOID: 4}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that a run must keep to; `is_floor` for one that it must reach."""

    name: str
    actual: float | None
    limit: float
    unit: str
    is_floor: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether it was kept; None when nothing was measured."""
        if self.actual is None:
            return None
        return self.actual >= self.limit if self.is_floor else self.actual <= self.limit


@dataclass(frozen=True, slots=True)
class SaleOutcome:
    """What became of a sale's stock; `held` counts units in live orders."""

    sale: str
    stock: int
    held: int
    sold: int

    @property
    def oversold(self) -> int:
        return max(0, self.held - self.stock)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOutcome:
    """
    What became of the orders of a run.

    Attributes:
        accepted: order ids given out.
        lost: accepted, and neither confirmed nor rejected now.
        refunded: orders whose money went back in full or in part.
        sold: units of paid orders.
    """

    accepted: int
    confirmed: int
    rejected: int
    paid: int
    closed: int
    refunded: int
    lost: int
    sales: tuple[SaleOutcome, ...]

    @property
    def stock(self) -> int:
        return sum(sale.stock for sale in self.sales)

    @property
    def sold(self) -> int:
        return sum(sale.sold for sale in self.sales)

    @property
    def oversold(self) -> int:
        return sum(sale.oversold for sale in self.sales)


def count_orders(history: History, orders: Mapping[str, OrderDocument]) -> OrderOutcome:
    """Count what became of the accepted orders, as their shoppers see them now."""
    statuses = [order["status"] for order in orders.values()]
    return OrderOutcome(
        accepted=len(orders),
        confirmed=sum(status in CONFIRMED_STATES for status in statuses),
        rejected=statuses.count("rejected"),
        paid=sum(status in PAID_STATES for status in statuses),
        closed=statuses.count("closed"),
        refunded=sum(bool(refunds(order)) for order in orders.values()),
        lost=statuses.count(MISSING) + statuses.count("queued"),
        sales=tuple(_count_sale(history, orders, sale) for sale in history.sales),
    )


def _count_sale(
    history: History,
    orders: Mapping[str, OrderDocument],
    sale: str,
) -> SaleOutcome:
    own = [orders[i] for i, click in history.accepted().items() if click.sale == sale]
    return SaleOutcome(
        sale,
        history.sales[sale].stock,
        sum(order["quantity"] for order in own if order["status"] in LIVE_STATES),
        sum(order["quantity"] for order in own if order["status"] in PAID_STATES),
    )


def grade_run(
    equations: Sequence[Equation],
    thresholds: Sequence[Threshold],
    doubts: Sequence[str] = (),
) -> Grade:
    """
    Sum up a run.

    Args:
        equations: of the shoppers and of the service.
        thresholds: what was measured against what was wanted.
        doubts: why the measurement means nothing, if so.
    """
    verdict = verdict_of(equations)
    if verdict is Verdict.BROKEN:
        return Grade.BROKEN
    kept = [threshold.is_met for threshold in thresholds]
    if verdict is not Verdict.HOLDS or doubts or None in kept:
        return Grade.VOID
    return Grade.PASS if all(kept) else Grade.FAIL
