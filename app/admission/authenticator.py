"""Tell the boundary who sent a request."""

from collections.abc import Mapping

from app.admission.operators import Operators
from app.admission.tokens import ShopperTokens
from app.kernel.clock import Clock
from app.web.access import Operator


class TokenAuthenticator:
    """Reads bearer tokens: shoppers' JWTs and the admin listener's tokens."""

    def __init__(self, shoppers: ShopperTokens, operators: Operators, clock: Clock) -> None:
        self._shoppers = shoppers
        self._operators = operators
        self._clock = clock

    def shopper(self, headers: Mapping[str, str]) -> str | None:
        """Return the shopper's id, or None when no valid token was shown."""
        shown = headers.get("Authorization")
        if shown is None:
            return None
        return self._shoppers.verify(shown, self._clock.now_ms() / 1000)

    def operator(self, headers: Mapping[str, str]) -> Operator | None:
        """Return the holder of the admin token, or None when no valid token was shown."""
        shown = headers.get("Authorization")
        return None if shown is None else self._operators.find(shown)
