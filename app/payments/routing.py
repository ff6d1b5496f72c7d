"""
By which merchant account a payment goes, and by which next when the first surely took nothing.

The shopper chooses the wallet; which of our accounts there opens the payment is
the service's choice. A route is left for the next one only when the first surely
holds no payment: nothing was sent, or the provider signed that this account, not
this request, is the trouble. Unknown is never left (docs/PAYMENTS.md §4.6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from app.payments.provider import Action, Outcome, Product, Provider, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWish:
    """What a route is chosen for."""

    number: str  # of the order, for choices that must come out the same again
    provider: str
    product: Product
    amount_minor: int
    currency: str
    merchant: str
    sale: str = ""  # its id


class Routing(Protocol):
    """Chooses routes; called while an order is locked, so it does no I/O."""

    def choose(self, accounts: Sequence[Provider], wish: RouteWish) -> list[Provider]:
        """
        Return the routes that may be tried, best first; none if all are shut.

        Args:
            accounts: every account at the provider that was wished for, in the
                order of the settings.
            wish: what the route is for.
        """
        ...

    def may_call(self, route: Provider) -> bool:
        """Ask for one call to a route; False: it counts as not sent."""
        ...

    def note(self, route: Provider, product: Product, result: Result[Action], took_ms: int) -> None:
        """Learn from how a call to a route went."""
        ...

    def note_opened(self, route: Provider, amount_minor: int) -> None:
        """Learn that a payment was opened by a route."""
        ...


class ConfiguredOrder:
    """Every account that offers the product, in the order of the settings."""

    def choose(self, accounts: Sequence[Provider], wish: RouteWish) -> list[Provider]:
        return [account for account in accounts if wish.product in account.products]

    def may_call(self, route: Provider) -> bool:  # noqa: ARG002  any route, any time
        return True

    def note(self, route: Provider, product: Product, result: Result[Action], took_ms: int) -> None:
        """Learn nothing."""

    def note_opened(self, route: Provider, amount_minor: int) -> None:
        """Learn nothing."""


IN_CONFIGURED_ORDER: Final[Routing] = ConfiguredOrder()


def leads_elsewhere(result: Result[Action]) -> bool:
    """Whether the next route may be tried: this one surely holds no payment."""
    if result.value is not None:
        return False
    if result.outcome is Outcome.NOT_SENT:
        return True
    return result.outcome is Outcome.REJECTED and result.concerns_account
