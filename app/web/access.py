"""Who may call a route, decided in one place when routes are mounted."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

MERCHANT_PREFIX: Final = "merchant:"


class Access(Enum):
    """Whom a route serves."""

    PUBLIC = "public"
    SHOPPER = "shopper"
    VIEWER = "viewer"  # viewer or operator
    OPERATOR = "operator"
    MERCHANT = "merchant"  # a merchant of its own things; viewers read, operators write
    PROVIDER = "provider"  # a payment provider: the route checks the signature itself


@dataclass(frozen=True, slots=True)
class Operator:
    """
    Somebody with an admin token.

    Args:
        name: how the audit row calls them.
        scope: `viewer`, `operator` or `merchant:<id>`.
    """

    name: str
    scope: str

    @property
    def merchant(self) -> str | None:
        """The merchant this token is confined to; None for the house's own people."""
        if self.scope.startswith(MERCHANT_PREFIX):
            return self.scope.removeprefix(MERCHANT_PREFIX)
        return None


class Authenticator(Protocol):
    """Tells by its headers who sent a request; `wiring` hands in admission's."""

    def shopper(self, headers: Mapping[str, str]) -> str | None:
        """Return the shopper's id, or None when nothing valid was shown."""
        ...

    def operator(self, headers: Mapping[str, str]) -> Operator | None:
        """Return the holder of the admin token, or None when nothing valid was shown."""
        ...


def is_allowed(access: Access, operator: Operator, method: str) -> bool:
    """Say whether this token's scope opens a route of this access."""
    is_reading = method in {"GET", "HEAD"}
    if operator.scope == "operator":
        return True
    if operator.scope == "viewer":
        return access is Access.VIEWER or (access is Access.MERCHANT and is_reading)
    return access is Access.MERCHANT and operator.merchant is not None
