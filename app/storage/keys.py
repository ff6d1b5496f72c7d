"""
The catalogue of every Redis key: name, type, owner, lifetime.

All keys of a bucket share one hash tag, so they live in one cluster slot; the epoch is part of
every name, so a late call of an old epoch touches dead keys; the deployment comes first, so that
several deployments (and every test) can share a server. They expire together, a day after the
sale ends: the coordinator sets the expiry of what it writes, and a script that creates a key
copies the expiry of `state`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

BUCKET_KEY_PATTERN: Final = "<deployment>:{<sale>.<bucket>}:e<epoch>:"

# A brace or a colon in the deployment's name would move the hash tag.
_DEPLOYMENT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class CatalogueEntry(NamedTuple):
    """One kind of key."""

    name: str
    redis_type: Literal["hash", "stream"]
    owner: str  # the stage that alone writes it
    holds: str

    @property
    def pattern(self) -> str:
        """How the key is spelt, as the headers of the scripts repeat it."""
        return f"{BUCKET_KEY_PATTERN}{self.name}"


CATALOGUE: Final = (
    CatalogueEntry("state", "hash", "inventory", "stock, window, gate, lease and counters"),
    CatalogueEntry("shoppers", "hash", "orders", "shopper -> units held"),
    CatalogueEntry("replays", "hash", "orders", "key hash -> order, placed_at and fingerprint"),
    CatalogueEntry("moves", "hash", "inventory", "move id -> units, of the moves applied"),
    CatalogueEntry("groups", "hash", "orders", "group id -> seats, expiry, leader, shut"),
    CatalogueEntry("members", "hash", "orders", "shopper -> live group id"),
    CatalogueEntry("orders", "stream", "orders", "one entry per accepted batch"),
)


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """The keys of one bucket in one epoch."""

    deployment: str
    sale: int
    bucket: int
    epoch: int

    def __post_init__(self) -> None:
        assert _DEPLOYMENT.fullmatch(self.deployment), self.deployment
        assert self.sale >= 0
        assert self.bucket >= 0
        assert self.epoch >= 0

    @property
    def state(self) -> bytes:
        """Hash: stock, window, gate, lease and counters."""
        return self.named("state")

    @property
    def shoppers(self) -> bytes:
        """Hash: shopper -> units held."""
        return self.named("shoppers")

    @property
    def replays(self) -> bytes:
        """Hash: key hash -> order, placed_at and fingerprint."""
        return self.named("replays")

    @property
    def moves(self) -> bytes:
        """Hash: move id -> units, of the moves applied in this epoch."""
        return self.named("moves")

    @property
    def groups(self) -> bytes:
        """Hash: group id -> seats, expiry, leader, shut."""
        return self.named("groups")

    @property
    def members(self) -> bytes:
        """Hash: shopper -> live group id."""
        return self.named("members")

    @property
    def orders(self) -> bytes:
        """Stream: one entry per accepted batch."""
        return self.named("orders")

    @property
    def channel(self) -> bytes:
        """Where the flusher says what it has committed; of the bucket, not of an epoch."""
        return f"{self._tag}:committed".encode()

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every key of this epoch, in the order of the catalogue."""
        return self.in_order(entry.name for entry in CATALOGUE)

    def named(self, name: str) -> bytes:
        """Spell the key with this name of the catalogue."""
        return f"{self._tag}:e{self.epoch}:{name}".encode()

    def in_order(self, names: Iterable[str]) -> tuple[bytes, ...]:
        """Spell the keys with these names, for a script that wants them in this order."""
        return tuple(self.named(name) for name in names)

    @property
    def _tag(self) -> str:
        return f"{self.deployment}:{{{self.sale}.{self.bucket}}}"


def trial_key(deployment: str) -> bytes:
    """Spell the key that the coordinator writes to see whether the server takes writes."""
    assert _DEPLOYMENT.fullmatch(deployment), deployment
    return f"{deployment}:trial".encode()
