"""
Seals: the encryption of personal fields, each under a key that can be replaced live.

A field is sealed with AES-256-GCM under the one key whose use is `seal`, and opened
with whichever key its row names. The order's key and the field's name are
authenticated with it: a value that was copied to another order or another field
does not open. A keyed hash of the phone number finds orders without opening any.

The keys of cipher and hash are derived from each configured key, so neither tells
anything of the other. This module is the stage's door to `cryptography`.

Source:
    NIST SP 800-38D (nonces of 96 random bits: at most 2**32 fields under one key,
    that is 850 million orders); RFC 5869 (HKDF).
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.kernel.errors import BadConfiguration, BrokenState, SealKeyMissing
from app.kernel.ids import OrderKey

SETTING: Final = "DOORBUSTER_FULFILMENT__DELIVERY_KEYS"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class SealUse(StrEnum):
    """What a key is for: it always opens what it has sealed."""

    SEAL = "seal"  # new fields; exactly one key
    OPEN = "open"  # what is not sealed anew yet, or may soon be sealed by other processes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKey:
    """One configured key; 32 bytes."""

    kid: str
    key: bytes = field(repr=False)
    use: SealUse


class _WrittenKey(msgspec.Struct, forbid_unknown_fields=True):
    kid: str
    key: str
    use: SealUse


def read_seal_keys(text: str) -> tuple[SealKey, ...]:
    """
    Read the keys, a JSON list of {kid, key, use} with the key in base64url.

    Raises:
        BadConfiguration: a sentence that names the key at fault, never its bytes.
    """
    try:
        written = msgspec.json.decode(text or "[]", type=list[_WrittenKey])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # msgspec names the place and the type, not the value: no secret leaks.
        raise BadConfiguration(setting=SETTING, problem=str(error)) from error
    keys = tuple(_seal_key(one) for one in written)
    if len({key.kid for key in keys}) < len(keys):
        raise BadConfiguration(setting=SETTING, problem="two keys have one kid")
    if len({key.key for key in keys}) < len(keys):
        raise BadConfiguration(setting=SETTING, problem="two kids have one key")
    if sum(key.use is SealUse.SEAL for key in keys) != 1:
        raise BadConfiguration(setting=SETTING, problem="exactly one key must have use = seal")
    return keys


def _seal_key(written: _WrittenKey) -> SealKey:
    unpadded = written.key.rstrip("=")
    try:
        raw = base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_key(written.kid, "key is not base64url") from error
    if len(raw) != KEY_BYTES:
        raise _bad_key(written.kid, f"key must have {KEY_BYTES} bytes")
    if not 1 <= len(written.kid) <= 64 or not written.kid.isprintable():
        raise _bad_key(written.kid[:64], "kid must have 1 to 64 printable characters")
    return SealKey(kid=written.kid, key=raw, use=written.use)


def _bad_key(kid: str, problem: str) -> BadConfiguration:
    return BadConfiguration(setting=SETTING, kid=kid, problem=problem)


class FieldSeals:
    """Seal fields, open them, and hash phone numbers for search."""

    def __init__(self, keys: Sequence[SealKey]) -> None:
        self._ciphers = {one.kid: AESGCM(_derive(one.key, b"field")) for one in keys}
        self._hashes = {one.kid: _derive(one.key, b"search") for one in keys}
        (self.kid,) = (one.kid for one in keys if one.use is SealUse.SEAL)
        self.kids = frozenset(self._ciphers)
        self.old_kids = tuple(one.kid for one in keys if one.use is SealUse.OPEN)

    def seal(self, order: OrderKey, name: str, text: str) -> bytes:
        """Return nonce, ciphertext and tag of one field of one order, under `self.kid`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.kid].encrypt(nonce, text.encode(), _about(order, name))

    def open(self, kid: str, order: OrderKey, name: str, sealed: bytes) -> str:
        """
        Return what a field says.

        Raises:
            SealKeyMissing: the key is not configured here.
            BrokenState: the bytes were not sealed for this order and field.
        """
        cipher = self._ciphers.get(kid)
        if cipher is None:
            raise SealKeyMissing(kid=kid, setting=SETTING)
        nonce, content = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, content, _about(order, name)).decode()
        except InvalidTag as error:
            raise BrokenState(field=name, kid=kid, why="it was not sealed for this") from error

    def hash_mobile(self, mobile: str) -> bytes:
        """Return the 32 bytes by which a number in E.164 is found, under `self.kid`."""
        return _hash(self._hashes[self.kid], mobile)

    def hashes_of_mobile(self, mobile: str) -> list[bytes]:
        """Return the same under every key: rows that wait to be sealed anew are found too."""
        return [_hash(key, mobile) for key in self._hashes.values()]


def _derive(key: bytes, purpose: bytes) -> bytes:
    info = b"doorbuster delivery " + purpose
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def _about(order: OrderKey, name: str) -> bytes:
    return f"{order.sale}.{order.bucket}.{order.epoch}.{order.seq} {name}".encode()


def _hash(key: bytes, mobile: str) -> bytes:
    return hmac.digest(key, mobile.encode(), hashlib.sha256)
