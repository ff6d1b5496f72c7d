"""
The seats of group sales in Redis: what an entry holds, and the two scripts that free seats.

Redis counts the seats that are taken, Postgres those that are paid. What Redis counts is rebuilt
from Postgres: an open group has a seat for each order that holds units, a formed one is full, and
of any other no seat is taken and nobody may join.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from redis.asyncio import Redis

from app.inventory.bucket import ForgottenKey, MoveAnswer, MoveCode, forgotten_arguments
from app.kernel.clock import unix_ms
from app.storage.keys import BucketKeys
from app.storage.lua import bind_script, call_script
from app.storage.redis import RedisArgument

_ENTRY_BYTES: Final = 9

SELECT_GROUPS: Final = """
SELECT g.id, g.expires_at, g.shut_at IS NOT NULL OR g.state <> 'open' AS is_shut,
       CASE WHEN g.state = 'formed' THEN g.size
            WHEN g.state = 'open' THEN
                (SELECT count(*) FROM orders o
                 WHERE (o.sale, o.bucket, o.group_id) = (g.sale, g.bucket, g.id)
                   AND o.units_held > 0)
            ELSE 0 END::int AS seats
FROM groups g WHERE g.sale = $1 AND g.bucket = $2"""
SELECT_MEMBERS: Final = """
SELECT o.shopper, o.group_id FROM orders o
JOIN groups g ON (g.sale, g.bucket, g.id) = (o.sale, o.bucket, o.group_id)
WHERE o.sale = $1 AND o.bucket = $2 AND o.units_held > 0 AND g.state = 'open'"""


class GroupEntry(NamedTuple):
    """What `groups` holds of one group."""

    seats: int  # taken
    expires_at_ms: int
    is_shut: bool  # nobody may join any more

    def pack(self) -> bytes:
        """Give the bytes of the hash's value."""
        return (
            self.seats.to_bytes(2, "big")
            + self.expires_at_ms.to_bytes(6, "big")
            + bytes([self.is_shut])
        )

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read the bytes of the hash's value."""
        assert len(packed) == _ENTRY_BYTES
        seats, expires_at_ms = packed[:2], packed[2:8]
        return cls(
            int.from_bytes(seats, "big"), int.from_bytes(expires_at_ms, "big"), packed[8] == 1
        )


def entry_from_row(row: Mapping[str, Any]) -> GroupEntry:
    """Turn a row of SELECT_GROUPS into an entry."""
    return GroupEntry(row["seats"], unix_ms(row["expires_at"]), row["is_shut"])


async def return_group_units(  # noqa: PLR0913  each is one column of the move
    redis: Redis,
    keys: BucketKeys,
    *,
    incarnation: str,
    move_id: str,
    shopper: str,
    units: int,
    group: str,
    forgotten: ForgottenKey | None = None,
) -> MoveAnswer:
    """Give back a group order's units and its seat; see `return_units` for the rest."""
    script = bind_script("inventory/return_group_units", incarnation)
    arguments: list[RedisArgument] = [
        move_id,
        shopper,
        units,
        *forgotten_arguments(forgotten),
        group,
    ]
    reply = await call_script(redis, script, keys, arguments)
    return MoveAnswer(MoveCode(reply[0]), reply[1])


async def set_seats(  # noqa: PLR0913  each is one column of the move
    redis: Redis,
    keys: BucketKeys,
    *,
    incarnation: str,
    move_id: str,
    group: str,
    seats: int | None,
    expires_at: datetime,
    members: Sequence[str],
    members_group: str | None,
) -> MoveAnswer:
    """
    Shut a group for joining, once for each move, and say what becomes of its members.

    Args:
        redis: the server that holds the bucket.
        keys: of the move's epoch.
        incarnation: 16 hex digits, of the lease row.
        move_id: of the row in bucket_moves.
        group: "<epoch>.<seq>".
        seats: taken from now on; None leaves them.
        expires_at: when the group ends.
        members: shoppers whose place changes, those who still are in this group.
        members_group: where they belong from now on; None for nowhere.

    Returns:
        The orders placed in the bucket until now, in place of units: whoever joined
        the group is among them.
    """
    script = bind_script("inventory/set_seats", incarnation)
    arguments: list[RedisArgument] = [
        move_id,
        group,
        "" if seats is None else seats,
        unix_ms(expires_at),
        " ".join(members),
        members_group or "",
    ]
    reply = await call_script(redis, script, keys, arguments)
    return MoveAnswer(MoveCode(reply[0]), reply[1])
