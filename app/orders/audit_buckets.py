"""
What Redis and Postgres must agree on: I3, I9, I17, I18.

Two stores share no instant. So the lease row is read, then Redis in one MULTI,
then the lease row again:

- The live forms compare counters that only grow within an epoch, each side read
  where its neighbour cannot have run ahead of it. They hold at any moment, if both
  readings of the lease row show the same open epoch.
- The exact forms are judged when both readings are equal in every column they
  use: then nothing moved in Postgres while Redis was read, and every move that
  Redis may have seen is known. At rest that is always so; in a rush it is tried a
  few times, and otherwise the live forms stand in for them (`Doubt.IN_MOTION`).

The exact I3 counts what is on its way, so it needs no rest in Redis:
remaining + unflushed + returning + half-done moves + reserved = granted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from redis.asyncio import Redis

from app.inventory.picture import BucketPicture, Offset, take_picture
from app.kernel.equation import (
    Doubt,
    Equation,
    Relation,
    at_most,
    equal,
    none_of,
    unjudged,
)
from app.kernel.errors import BrokenState, RedisUnavailable, UnreadableEntry
from app.orders import audit_store as store
from app.orders.audit_holders import audit_holders
from app.orders.audit_stock import subject_of
from app.orders.audit_store import Row, Sales
from app.orders.stream import EntryId, decode_entry
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors
from app.storage.shards import Shard, Shards

TRIES_MAX: Final = 5  # to meet a bucket between two flushes, which are some 10 ms apart

EXACT_I3: Final = (
    "remaining + unflushed + returning + half-done moves + reserved",
    Relation.EQUAL,
    "granted",
)
EXACT_I17: Final = ("orders before the oldest entry that waits", Relation.EQUAL, "orders seen")


class _Key(NamedTuple):
    sale: int
    bucket: int


@dataclass(frozen=True, slots=True)
class _Look:
    """A lease row, Redis, and the lease row again."""

    before: Row
    picture: BucketPicture
    after: Row

    @property
    def is_still(self) -> bool:
        return bool(self.before == self.after)


async def audit_buckets(
    shards: Shards, redis: Redis, deployment: str, sales: Sales
) -> list[Equation]:
    """
    Judge what Redis and Postgres must agree on, bucket by bucket.

    Raises:
        ShardUnavailable: a shard does not answer.
    """
    equations: list[Equation] = []
    for shard in shards.all:
        equations += await _ShardAudit(shard, redis, deployment, sales).judge()
    return equations


class _ShardAudit:
    """Audits the buckets of one shard."""

    def __init__(self, shard: Shard, redis: Redis, deployment: str, sales: Sales) -> None:
        self._shard = shard
        self._redis = redis
        self._deployment = deployment
        self._sales = sales
        self._away = ""  # what Redis said when it last did not answer

    async def judge(self) -> list[Equation]:
        rows = await store.read_standings(self._shard, self._sales, live=False)
        equations = [
            equal("I3", subject_of(row), ("granted", row["granted"]), ("reserved", row["reserved"]))
            for row in rows
            if row["state"] == "closed"
        ]
        # Epoch 0 has never been opened: there is nothing in Redis to compare with.
        live = {_key(row): row for row in rows if row["state"] != "closed" and row["epoch"] > 0}
        for tries_left in reversed(range(TRIES_MAX)):
            if not live:
                break
            judged, live = await self._try(live, is_last=tries_left == 0)
            equations += judged
        return equations

    async def _try(
        self, live: Mapping[_Key, Row], *, is_last: bool
    ) -> tuple[list[Equation], dict[_Key, Row]]:
        """Look at each bucket once; give equations, and the rows to try again from."""
        pictures = {key: await self._picture(row) for key, row in live.items()}
        rows = await store.read_standings(self._shard, self._sales, live=True)
        after = {_key(row): row for row in rows}
        equations: list[Equation] = []
        again: dict[_Key, Row] = {}
        for key, row in live.items():
            picture = pictures[key]
            if not isinstance(picture, BucketPicture):
                equations.append(picture)
                continue
            look = _Look(row, picture, after.get(key, {}))
            if look.is_still or is_last or not _is_open(look):
                equations += await self._judge(look)
            else:
                again[key] = look.after
        return equations, again

    def _unreachable(self, row: Row) -> Equation:
        return unjudged("I3", subject_of(row), EXACT_I3, Doubt.UNREACHABLE, self._away)

    async def _picture(self, row: Row) -> BucketPicture | Equation:
        """Look at Redis; an equation instead when it cannot be looked at."""
        if self._away:
            return self._unreachable(row)
        flushed = Offset(row["stream_ms"], row["stream_seq"])
        try:
            return await take_picture(self._redis, self._keys(row), flushed, row["move_ids"])
        except RedisUnavailable as error:
            self._away = str(error)
            return self._unreachable(row)
        except BrokenState as error:
            what = "states in Redis that cannot be read"
            return none_of("I3", subject_of(row), what, 1, [str(error)])

    async def _judge(self, look: _Look) -> list[Equation]:
        if not _is_open(look):
            note = "the bucket is draining, or Redis has not its state"
            return [unjudged("I3", subject_of(look.before), EXACT_I3, Doubt.RECOVERING, note)]
        equations = [*_judge_counters(look), _judge_stock(look), *_judge_stream(look)]
        try:
            equations += [await self._judge_past(look), await self._judge_holders(look)]
        except RedisUnavailable as error:
            self._away = str(error)
            equations.append(self._unreachable(look.before))
        return equations

    async def _judge_holders(self, look: _Look) -> Equation:
        if not look.is_still or _on_their_way(look):
            return _holders_in_motion(look)
        return await audit_holders(self._shard, self._redis, self._keys(look.before), look.before)

    async def _judge_past(self, look: _Look) -> Equation:
        """Ask whether the epoch before could still sell: it must be fenced, lapsed or gone."""
        row = look.before
        past = BucketKeys(self._deployment, row["sale"], row["bucket"], row["epoch"] - 1)
        with redis_errors(writes=False):
            fenced, lease_until_ms = await self._redis.hmget(
                past.state.decode(), ["fenced", "lease_until_ms"]
            )
        sells = fenced == b"0" and int(lease_until_ms or 0) > look.picture.now_ms
        examples = [f"epoch {past.epoch} is not fenced"] if sells else []
        return none_of("I18", subject_of(row), "older epochs that may sell", int(sells), examples)

    def _keys(self, row: Row) -> BucketKeys:
        return BucketKeys(self._deployment, row["sale"], row["bucket"], row["epoch"])


def _key(row: Row) -> _Key:
    return _Key(row["sale"], row["bucket"])


def _is_open(look: _Look) -> bool:
    state = look.picture.state
    return (
        state is not None
        and not state.fenced
        and all(row.get("state") == "open" for row in (look.before, look.after))
        and look.before["epoch"] == look.after["epoch"]
    )


def _judge_counters(look: _Look) -> Iterator[Equation]:
    """Judge the live form of I3."""
    state = look.picture.state
    assert state is not None
    subject = subject_of(look.before)
    flushed = ("units flushed", look.before["units_flushed"])
    yield at_most("I3", subject, flushed, ("units placed", state.units_placed))
    released = ("units released", look.after["units_released"])
    yield at_most("I3", subject, ("units returned", state.units_returned), released)


def _judge_stock(look: _Look) -> Equation:
    """Judge the exact form of I3."""
    row, state = look.before, look.picture.state
    assert state is not None
    if not look.is_still:
        note = "orders were flushed while it was read"
        return unjudged("I3", subject_of(row), EXACT_I3, Doubt.IN_MOTION, note)
    unflushed, returning, half_done = _under_way(look)
    left = (
        f"remaining {state.remaining} + unflushed {unflushed} + returning {returning}"
        f" + half-done moves {half_done} + reserved {row['reserved']}"
    )
    total = state.remaining + unflushed + returning + half_done + row["reserved"]
    return equal("I3", subject_of(row), (left, total), ("granted", row["granted"]))


def _under_way(look: _Look) -> tuple[int, int, int]:
    """Return the units unflushed, returning, and in half-done top-ups and withdrawals."""
    row, picture = look.before, look.picture
    assert picture.state is not None
    unflushed = picture.state.units_placed - row["units_flushed"] - row["parked_units"]
    returning = half_done = 0
    moves = zip(row["move_ids"], row["move_kinds"], row["move_units"], strict=True)
    for move, kind, units in moves:
        applied = move in picture.moves
        if kind == "return" and not applied:
            returning += units
        elif kind == "top_up" and not applied:
            half_done += units
        elif kind == "withdrawal" and applied:
            half_done += picture.moves[move]
    return unflushed, returning, half_done


def _on_their_way(look: _Look) -> bool:
    unflushed, returning, _ = _under_way(look)
    return bool(unflushed or returning)


def _holders_in_motion(look: _Look) -> Equation:
    sides = ("shoppers whose units differ from Postgres", Relation.EQUAL, "0")
    note = "units are on their way between the stores"
    return unjudged("I9", subject_of(look.before), sides, Doubt.IN_MOTION, note)


def _judge_stream(look: _Look) -> Iterator[Equation]:
    """Judge I17: nothing was flushed that was never written, nothing trimmed unflushed."""
    row, picture, state = look.before, look.picture, look.picture.state
    assert state is not None
    subject = subject_of(row)
    offset = Offset(row["stream_ms"], row["stream_seq"])
    ahead = offset > picture.last_entry
    example = [f"offset {offset}, last entry {picture.last_entry}"] if ahead else []
    yield none_of("I17", subject, "offsets beyond the end of the stream", int(ahead), example)
    seen = ("orders seen", look.after["orders_seen"])
    yield at_most("I17", subject, ("orders trimmed from the stream", state.orders_flushed), seen)
    try:
        kept = _orders_before_the_oldest(look)
    except UnreadableEntry as error:
        yield unjudged("I17", subject, EXACT_I17, Doubt.RECOVERING, str(error))
        return
    if look.is_still:
        yield equal("I17", subject, (EXACT_I17[0], kept), (EXACT_I17[2], row["orders_seen"]))
    else:
        yield at_most("I17", subject, (EXACT_I17[0], kept), seen)


def _orders_before_the_oldest(look: _Look) -> int:
    """Return how many orders lie before the first entry that waits, or before the end."""
    picture = look.picture
    assert picture.state is not None
    if picture.waiting is None:
        return picture.state.orders_placed
    entry_id, fields = picture.waiting
    return decode_entry(EntryId(*entry_id), fields).orders_placed_before
