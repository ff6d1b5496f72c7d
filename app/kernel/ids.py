"""
Order ids: how sale, bucket, epoch and place in the epoch are read from one.

The key of an order is (sale, bucket, epoch, seq): the placing script counts
`seq`, so a key is unique without a clock or a random byte. The public form is
one AES-128 block over

    sale 22 bits | bucket 8 | epoch 12 | seq 34 | shopper tag 32 | check 20

written as 26 characters of Crockford's base32. So the shard of an order is
known without a look-up, the volume of a sale does not leak, an invented id
fails the check, and somebody else's fails the tag. The cipher hides volume; it
guards no secret, and the owner of a row is always compared as well.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NewType

OrderId = NewType("OrderId", str)
Cipher = Callable[[bytes], bytes]
"""Encrypts (or decrypts) any number of 16-byte blocks, each on its own (ECB)."""

SALE_MAX: Final = (1 << 22) - 1
BUCKET_MAX: Final = (1 << 8) - 1
EPOCH_MAX: Final = (1 << 12) - 1
SEQ_MAX: Final = (1 << 34) - 1
ORDER_ID_LENGTH: Final = 26

_CHECK: Final = 0xD00B5
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_TRIPLES: Final = [a + b + c for a in _ALPHABET for b in _ALPHABET for c in _ALPHABET]
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}


class OrderKey(NamedTuple):
    """The primary key of an order; `seq` counts from 0 within its epoch."""

    sale: int
    bucket: int
    epoch: int
    seq: int


def shopper_tag(shopper: str) -> int:
    """Return the 32 bits of a shopper that an order id carries (CRC-32)."""
    return zlib.crc32(shopper.encode())


def pack_order_key(key: OrderKey, tag: int) -> bytes:
    """Return the 16-byte block of one order, not yet encrypted."""
    sale, bucket, epoch, seq = key
    assert 0 < sale <= SALE_MAX
    assert 0 <= bucket <= BUCKET_MAX
    assert 0 <= epoch <= EPOCH_MAX
    assert 0 <= seq <= SEQ_MAX
    packed = ((((sale << 8 | bucket) << 12 | epoch) << 34 | seq) << 32 | tag) << 20 | _CHECK
    return packed.to_bytes(16, "big")


def write_order_ids(blocks: Sequence[bytes], encrypt: Cipher) -> list[OrderId]:
    """Turn packed blocks into public ids with one call of the cipher."""
    sealed = encrypt(b"".join(blocks))
    return [_base32(sealed[at : at + 16]) for at in range(0, len(sealed), 16)]


def read_order_id(text: str, decrypt: Cipher) -> tuple[OrderKey, int] | None:
    """
    Read a public id.

    Returns:
        The key and the shopper tag, or None for anything we did not write.
    """
    if len(text) != ORDER_ID_LENGTH:
        return None
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    if number >> 128:
        return None
    packed = int.from_bytes(decrypt(number.to_bytes(16, "big")), "big")
    if packed & 0xFFFFF != _CHECK:
        return None
    packed >>= 20
    tag = packed & 0xFFFFFFFF
    packed >>= 32
    seq = packed & SEQ_MAX
    packed >>= 34
    key = OrderKey(packed >> 20, packed >> 12 & BUCKET_MAX, packed & EPOCH_MAX, seq)
    return (key, tag) if key.sale else None


def _base32(block: bytes) -> OrderId:
    """
    Write 128 bits as 26 characters: ten bits by a table of pairs, the rest by triples.

    Half the time of single characters or pairs, a quarter of base64.b32encode.
    """
    number = int.from_bytes(block, "big")
    high, low = number >> 60, number & (1 << 60) - 1
    three = _TRIPLES
    return OrderId(
        f"{_PAIRS[high >> 60]}{three[high >> 45 & 32767]}{three[high >> 30 & 32767]}"
        f"{three[high >> 15 & 32767]}{three[high & 32767]}{three[low >> 45]}"
        f"{three[low >> 30 & 32767]}{three[low >> 15 & 32767]}{three[low & 32767]}"
    )
