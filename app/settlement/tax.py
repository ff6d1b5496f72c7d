"""Value-added tax inside tax-inclusive prices, and what refunds take back of it."""

from collections.abc import Iterable
from typing import Final

import msgspec

from app.settlement.fact import Refund

BASIS_POINTS: Final = 10_000


def tax_within(gross_minor: int, rate_basis_points: int) -> int:
    """
    Return the tax inside a tax-inclusive price, in minor units, rounded half up.

    Source:
        net = gross / (1 + rate), tax = gross - net; one line, rounded once.
    """
    divisor = BASIS_POINTS + rate_basis_points
    net_minor = (2 * gross_minor * BASIS_POINTS + divisor) // (2 * divisor)
    return gross_minor - net_minor


class Reversal(msgspec.Struct, frozen=True, kw_only=True):
    """What one refund of our own goods took back from revenue and tax."""

    order_id: str
    refund_no: str
    net_minor: int
    tax_minor: int


class TaxBook:
    """
    The tax on our own goods, and what refunds took back of it per order.

    A refund's tax is the tax within all money refunded so far, less the tax
    already taken back: so the parts of an order add up to the tax of the whole,
    and the last refund takes the remainder.
    """

    def __init__(self, reversals: Iterable[Reversal], rate_basis_points: int) -> None:
        assert 0 <= rate_basis_points < BASIS_POINTS
        self._rate = rate_basis_points
        self._of_order: dict[str, dict[str, Reversal]] = {}
        for reversal in reversals:
            self._remember(reversal)

    def within(self, gross_minor: int) -> int:
        """Return the tax inside a price."""
        return tax_within(gross_minor, self._rate)

    def reverse(self, refund: Refund) -> Reversal:
        """Return how a refund divides into net and tax; the same whenever asked again."""
        earlier = self._of_order.get(refund.order_id, {})
        known = earlier.get(refund.refund_no)
        if known is not None:
            return known
        tax_before = sum(reversal.tax_minor for reversal in earlier.values())
        gross_before = tax_before + sum(reversal.net_minor for reversal in earlier.values())
        tax_minor = self.within(gross_before + refund.amount_minor) - tax_before
        # A rate that has changed since could ask for more than this refund holds.
        tax_minor = min(max(tax_minor, 0), refund.amount_minor)
        reversal = Reversal(
            order_id=refund.order_id,
            refund_no=refund.refund_no,
            net_minor=refund.amount_minor - tax_minor,
            tax_minor=tax_minor,
        )
        self._remember(reversal)
        return reversal

    def _remember(self, reversal: Reversal) -> None:
        self._of_order.setdefault(reversal.order_id, {})[reversal.refund_no] = reversal
