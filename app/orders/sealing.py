"""
Sealing: the cipher behind order ids.

This module is the orders' door to `cryptography`; the encryption of delivery
details will stand beside it.
"""

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from app.kernel.errors import BadConfiguration
from app.kernel.ids import (
    OrderId,
    OrderKey,
    pack_order_key,
    read_order_id,
    shopper_tag,
    write_order_ids,
)


class OrderIds:
    """
    Write and read public order ids.

    ECB is right here and almost nowhere else: each id is exactly one block, no
    two blocks are equal because no two order keys are, and the same key must
    always give the same id.
    """

    def __init__(self, key: bytes) -> None:
        """Take the 16 bytes of the deployment's id key, fixed for its life."""
        if len(key) != 16:
            raise BadConfiguration(setting="DOORBUSTER_ORDERS__ID_KEY", why="it is not 16 bytes")
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305  see the class
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update

    def write(self, key: OrderKey, shopper: str) -> OrderId:
        """Return the public id of one order."""
        return self.write_batch([(key, shopper_tag(shopper))])[0]

    def write_batch(self, orders: Sequence[tuple[OrderKey, int]]) -> list[OrderId]:
        """Return the public ids of (key, shopper tag) pairs with one call of the cipher."""
        return write_order_ids([pack_order_key(key, tag) for key, tag in orders], self._encrypt)

    def read(self, text: str) -> tuple[OrderKey, int] | None:
        """Return the key and the shopper tag, or None for anything we did not write."""
        return read_order_id(text, self._decrypt)

    def pseudonym(self, kind: str, value: str) -> bytes:
        """
        Return 16 bytes that stand for a value, the same each time.

        Nobody without the key can find the value by trying all there are, as could
        be done with a bare hash of an address.
        """
        hashed = hashlib.blake2b(f"{kind}\n{value}".encode(), digest_size=16).digest()
        return self._encrypt(hashed)

    def read_own(self, text: str, shopper: str) -> OrderKey | None:
        """Return the key if the id is ours and its tag is this shopper's."""
        known = self.read(text)
        if known is None or known[1] != shopper_tag(shopper):
            return None
        return known[0]
