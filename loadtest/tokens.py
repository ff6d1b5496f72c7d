"""Shopper tokens for a run: HS256, ten lines, 20 000 of them in a tenth of a second."""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import msgspec

from loadtest.errors import NoSigningKey

TTL_SECONDS: Final = 3_600


class AuthKey(Protocol):
    """A key of DOORBUSTER_AUTH__KEYS, as far as signing needs it; `key` is base64url."""

    @property
    def kid(self) -> str: ...
    @property
    def alg(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def use(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs shopper tokens with one HS256 key."""

    kid: str
    key: bytes

    @classmethod
    def from_keys(cls, keys: Sequence[AuthKey]) -> Self:
        """
        Take the first HS256 key that may sign.

        Raises:
            NoSigningKey: there is none.
        """
        for key in keys:
            if key.alg == "HS256" and key.use == "sign":
                return cls.from_base64url(key.kid, key.key)
        raise NoSigningKey

    @classmethod
    def from_base64url(cls, kid: str, key: str) -> Self:
        return cls(kid, base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)))

    def sign(self, shopper: str, ttl_seconds: int = TTL_SECONDS) -> str:
        """Give a token for one shopper, valid from now."""
        header = {"alg": "HS256", "typ": "JWT"} | ({"kid": self.kid} if self.kid else {})
        expires = int(time.time()) + ttl_seconds
        claims = {"sub": shopper, "exp": expires, "aud": "doorbuster"}
        signed = (
            _segment(msgspec.json.encode(header)) + b"." + _segment(msgspec.json.encode(claims))
        )
        signature = hmac.digest(self.key, signed, hashlib.sha256)
        return (signed + b"." + _segment(signature)).decode()


def _segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
