"""What every act of the payment stage needs: the stores, the providers, the time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.kernel.clock import Clock, instant
from app.kernel.errors import ProviderUnavailable
from app.kernel.ids import OrderKey
from app.orders.sealing import OrderIds
from app.payments.intent import order_of_attempt
from app.payments.provider import Provider
from app.payments.routing import IN_CONFIGURED_ORDER, Routing
from app.payments.settings import PaymentSettings
from app.payments.tally import PaymentTally
from app.storage.shards import Shards


class Providers:
    """The providers that are configured, by name and merchant account."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._by_account = {
            (provider.code, provider.account.name): provider for provider in providers
        }
        self._accounts: dict[str, list[Provider]] = {}
        for (code, _), provider in self._by_account.items():
            self._accounts.setdefault(code, []).append(provider)

    def find(self, code: str, account: str) -> Provider | None:
        """Return a provider under one account, if it is configured."""
        return self._by_account.get((code, account))

    def accounts(self, code: str) -> Sequence[Provider]:
        """Return every account at one provider, in the order of the settings."""
        return self._accounts.get(code, ())

    def of(self, code: str, account: str) -> Provider:
        """
        Return the provider that a row names.

        Raises:
            ProviderUnavailable: it is no longer configured; its money still is ours.
        """
        provider = self.find(code, account)
        if provider is None:
            raise ProviderUnavailable(provider=code, account=account)
        return provider


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentStage:
    """The collaborators of this stage, made once in `wiring`."""

    shards: Shards
    order_ids: OrderIds
    providers: Providers
    clock: Clock
    settings: PaymentSettings
    tally: PaymentTally
    routing: Routing = field(default=IN_CONFIGURED_ORDER)

    def now(self) -> datetime:
        return instant(self.clock.now_ms())

    def order_key(self, attempt_number: str) -> OrderKey | None:
        """Read the order out of an attempt's number; None for a number we never gave."""
        order_id = order_of_attempt(attempt_number)
        known = None if order_id is None else self.order_ids.read(order_id)
        return None if known is None else known[0]
