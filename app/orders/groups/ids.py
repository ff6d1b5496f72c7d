"""
Group ids, the code that a leader shares.

`grp_` and the block of an order id, with a mark in place of the shopper: so the shard of a group
is known without a look-up, and nobody can invent one that exists.
"""

import zlib
from typing import Final

from app.kernel.ids import OrderKey
from app.orders.groups.group import GroupKey, group_name, opening_order
from app.orders.sealing import OrderIds

PREFIX: Final = "grp_"
_MARK: Final = zlib.crc32(b"group")


def write_group_id(ids: OrderIds, key: GroupKey) -> str:
    """Return the public id of a group."""
    (body,) = ids.write_batch([(opening_order(*key), _MARK)])
    return PREFIX + body


def read_group_id(ids: OrderIds, text: str) -> GroupKey | None:
    """Return the key of a group, or None for anything we did not write."""
    if not text.startswith(PREFIX):
        return None
    known = ids.read(text.removeprefix(PREFIX))
    if known is None or known[1] != _MARK:
        return None
    return group_of(known[0])


def group_of(opening: OrderKey) -> GroupKey:
    """Return the group that an order opens."""
    return GroupKey(opening.sale, opening.bucket, group_name(opening.epoch, opening.seq))
