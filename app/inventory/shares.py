"""
How a sale's units are spread over its buckets: pure rules.

Nobody can buy from another bucket than the one a shopper's name leads to. So when one has
sold everything and others have not, units move: half of what the richest has goes back to the
pool, and the pool fills the poorest first.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Withdrawal(NamedTuple):
    """Units wished out of a bucket."""

    bucket: int
    units: int


def even_shares(units: int, buckets: int) -> list[int]:
    """Split units over buckets as evenly as whole units go, the first ones rounded up."""
    share, rest = divmod(units, buckets)
    return [share + (bucket < rest) for bucket in range(buckets)]


def level_shares(units: int, remaining: Mapping[int, int]) -> dict[int, int]:
    """
    Split units so that the poorest buckets come as close to each other as they can.

    Args:
        units: 0..n, all of them are given.
        remaining: bucket -> units it can still sell; 1..n buckets.

    Returns:
        Bucket -> units for it, only where there are any.
    """
    poorest_first = sorted(remaining, key=lambda bucket: (remaining[bucket], bucket))
    total, level, rest, filled = units, 0, 0, 0
    for count, bucket in enumerate(poorest_first, start=1):
        if filled and remaining[bucket] > level:
            break
        total += remaining[bucket]
        filled = count
        level, rest = divmod(total, count)
    shares = {
        bucket: level + (place < rest) - remaining[bucket]
        for place, bucket in enumerate(poorest_first[:filled])
    }
    return {bucket: share for bucket, share in shares.items() if share}


def withdrawal_of(remaining: Mapping[int, int]) -> Withdrawal | None:
    """
    Say what to take from the richest bucket, if another one is sold out.

    A last unit stays where it is: half of it is nothing, so units never go round.

    Args:
        remaining: bucket -> units it can still sell, of the buckets that sell.
    """
    if not remaining or min(remaining.values()) > 0:
        return None
    richest = max(remaining, key=lambda bucket: (remaining[bucket], -bucket))
    units = remaining[richest] // 2
    return Withdrawal(richest, units) if units else None
