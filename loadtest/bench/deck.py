"""
Requests, ready for the wire: each with a shopper, a token and a key of its own.

They are made before the clock runs. Shoppers and keys follow from a number, so a
replay is the same number again.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from loadtest.tokens import Signer

WAIT: Final = "Prefer: wait=5\r\n"
BODY: Final = b'{"quantity":1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Deck:
    """
    Clicks for one sale.

    Attributes:
        host: for the Host header.
        sale: its public id.
        signer: makes the shoppers' tokens.
        run: makes shoppers unique; of [0-9a-z].
        first: the number of the first shopper.
        count: how many shoppers.
        again: begin again at the end: replays, or a server that remembers nobody.
        wait_every: each so many-th click asks for its row (`Prefer: wait=5`); 0: none does.
    """

    host: str
    sale: str
    signer: Signer
    run: str
    first: int = 0
    count: int
    again: bool = False
    wait_every: int = 0

    def part(self, index: int, parts: int) -> "Deck":
        """Give one of several generators its share; no shopper is in two of them."""
        share = self.count // parts
        return replace(self, first=self.first + index * share, count=share)

    def requests(self) -> Iterator[bytes]:
        """Make every request now; give them in order."""
        made = [self._request(number) for number in range(self.first, self.first + self.count)]
        return itertools.cycle(made) if self.again else iter(made)

    def _request(self, number: int) -> bytes:
        token = self.signer.sign(f"{self.run}-{number:08d}")
        waits = self.wait_every > 0 and number % self.wait_every == 0
        return (
            f"POST /v1/sales/{self.sale}/orders HTTP/1.1\r\n"
            f"Host: {self.host}\r\n"
            f"Authorization: Bearer {token}\r\n"
            f"Idempotency-Key: {number:032x}\r\n"
            f"Content-Type: application/json\r\n"
            f"{WAIT if waits else ''}"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
