"""renew_lease, fence_bucket and read_bucket: who may sell, who may not, and how it stands."""

from dataclasses import replace
from typing import Final, NamedTuple

import pytest

from app.inventory.bucket import (
    FenceAnswer,
    FenceCode,
    Gate,
    RenewCode,
    fence_bucket,
    read_bucket,
    renew_lease,
)
from app.kernel.errors import BrokenState
from app.orders.answers import PlaceCode, Placed, Refused
from tests.lua.bucket_on_valkey import INCARNATION, BucketOnValkey, an_order, table

LEASE_MS: Final = 4_000

# The lease in the state ends 3 s from now.
RENEWALS: Final = """
# asked, ms from now -> code
  4000               -> RENEWED
  4900               -> RENEWED
  6000               -> TOO_FAR
  2000               -> ALREADY
  -1                 -> LATE
"""

# Each situation alone gives its code; with a later one it still gives its own.
SITUATIONS: Final = ("NOT_READY", "FENCED", "OTHER_SERVER", "LATE", "RENEWED")


class Server(NamedTuple):
    """Who a server says it is."""

    run_id: str
    master_replid: str


@pytest.fixture
async def server(bucket: BucketOnValkey) -> Server:
    told = await bucket.redis.info("everything")
    return Server(told["run_id"], told["master_replid"])


async def renew(
    bucket: BucketOnValkey,
    server: Server,
    from_now_ms: int = LEASE_MS,
    gate: Gate = Gate.OPEN,
    incarnation: str = INCARNATION,
) -> RenewCode:
    before_ms = await bucket.now_ms()
    answer = await renew_lease(
        bucket.redis,
        bucket.keys,
        incarnation=incarnation,
        **server._asdict(),
        lease_until_ms=before_ms + from_now_ms,
        gate=gate,
    )
    assert before_ms <= answer.now_ms <= await bucket.now_ms()
    return answer.code


@pytest.mark.parametrize(("from_now_ms", "code"), table(RENEWALS))
async def test_renewals(
    bucket: BucketOnValkey, server: Server, from_now_ms: str, code: str
) -> None:
    ends_ms = await bucket.now_ms() + 3_000
    await bucket.change(lease_until_ms=ends_ms)
    assert (await renew(bucket, server, int(from_now_ms), Gate.PAUSED)).name == code
    state = await bucket.state()
    renewed = code == "RENEWED"
    assert state.gate == (Gate.PAUSED if renewed else Gate.OPEN)
    assert (state.lease_until_ms == ends_ms) != renewed


async def test_a_renewal_as_long_as_the_lease_sets_its_gate(
    bucket: BucketOnValkey, server: Server
) -> None:
    ends_ms = (await bucket.state()).lease_until_ms
    answer = await renew_lease(
        bucket.redis,
        bucket.keys,
        incarnation=INCARNATION,
        **server._asdict(),
        lease_until_ms=ends_ms,
        gate=Gate.PAUSED,
    )
    assert answer.code is RenewCode.RENEWED
    assert (await bucket.state()).gate is Gate.PAUSED


@pytest.mark.parametrize("first", SITUATIONS)
@pytest.mark.parametrize("second", SITUATIONS)
async def test_the_earlier_check_wins(
    bucket: BucketOnValkey, server: Server, first: str, second: str
) -> None:
    situations = {first, second}
    if "FENCED" in situations:
        await bucket.change(fenced=1)
    if "OTHER_SERVER" in situations:
        server = server._replace(run_id="0" * 40)
    if "NOT_READY" in situations:
        await bucket.redis.hdel(bucket.keys.state, "lease_until_ms")
    from_now_ms = -1 if "LATE" in situations else LEASE_MS + 900
    expected = min(situations, key=SITUATIONS.index)
    assert (await renew(bucket, server, from_now_ms)).name == expected


@pytest.mark.parametrize("field", ["incarnation", "fenced", "lease_until_ms"])
async def test_a_missing_field_is_not_ready(
    bucket: BucketOnValkey, server: Server, field: str
) -> None:
    await bucket.redis.hdel(bucket.keys.state, field)
    before = await bucket.everything()
    assert await renew(bucket, server) is RenewCode.NOT_READY
    assert await bucket.everything() == before


@pytest.mark.parametrize("field", ["run_id", "master_replid"])
async def test_another_server_renews_nothing(
    bucket: BucketOnValkey, server: Server, field: str
) -> None:
    before = await bucket.everything()
    other = server._replace(**{field: "f" * 40})
    assert await renew(bucket, other) is RenewCode.OTHER_SERVER
    assert await bucket.everything() == before


async def test_a_state_of_another_incarnation_is_not_renewed(
    bucket: BucketOnValkey, server: Server
) -> None:
    await bucket.change(incarnation=INCARNATION[::-1])
    assert await renew(bucket, server) is RenewCode.OTHER_SERVER


async def test_a_lapsed_lease_is_simply_renewed(bucket: BucketOnValkey, server: Server) -> None:
    await bucket.change(lease_until_ms=1)
    assert await bucket.place(an_order()) == [Refused(PlaceCode.STALE)]
    assert await renew(bucket, server) is RenewCode.RENEWED
    assert await bucket.place(an_order()) == [Placed(0)]


async def test_an_epoch_opens_with_its_first_renewal(
    bucket: BucketOnValkey, server: Server
) -> None:
    await bucket.change(gate=Gate.SHUT, lease_until_ms=0)
    assert await renew(bucket, server, gate=Gate.OPEN) is RenewCode.RENEWED
    assert await bucket.place(an_order()) == [Placed(0)]


async def test_a_clock_that_was_set_back_does_not_lock_the_lease(
    bucket: BucketOnValkey, server: Server
) -> None:
    await bucket.change(lease_until_ms=await bucket.now_ms() + 3_600_000)
    assert await bucket.place(an_order()) == [Refused(PlaceCode.STALE)]
    assert await renew(bucket, server) is RenewCode.RENEWED
    assert await bucket.place(an_order()) == [Placed(0)]


async def test_a_full_server_keeps_its_leases(bucket: BucketOnValkey, server: Server) -> None:
    await bucket.redis.config_set("maxmemory", 1)
    try:
        assert await renew(bucket, server, LEASE_MS + 950) is RenewCode.RENEWED
        assert (await fence_bucket(bucket.redis, bucket.keys)).code is FenceCode.FENCED
    finally:
        await bucket.redis.config_set("maxmemory", 0)


async def test_a_fence_tells_what_it_closed(bucket: BucketOnValkey, server: Server) -> None:
    await bucket.place(an_order(quantity=2), an_order("k2", "bob"))
    (entry,) = await bucket.entries()
    answer = await fence_bucket(bucket.redis, bucket.keys)
    assert answer == FenceAnswer(FenceCode.FENCED, str(entry.entry_id), 7, 2)
    assert await fence_bucket(bucket.redis, bucket.keys) == answer._replace(code=FenceCode.ALREADY)
    assert await bucket.place(an_order()) == [Refused(PlaceCode.STALE)]
    assert await renew(bucket, server) is RenewCode.FENCED


async def test_a_fence_on_nothing_writes_nothing(bucket: BucketOnValkey) -> None:
    await bucket.redis.delete(bucket.keys.state)
    answer = await fence_bucket(bucket.redis, bucket.keys)
    assert answer == FenceAnswer(FenceCode.NOT_READY, "0-0", -1, -1)
    assert await bucket.redis.exists(*bucket.keys.all) == 0


async def test_a_fence_knows_the_last_entry_of_an_emptied_stream(bucket: BucketOnValkey) -> None:
    await bucket.place(an_order())
    (entry,) = await bucket.entries()
    await bucket.redis.xtrim(bucket.keys.orders, maxlen=0, approximate=False)
    answer = await fence_bucket(bucket.redis, bucket.keys)
    assert answer.last_entry_id == str(entry.entry_id)


async def test_a_fence_holds_where_numbers_are_missing(bucket: BucketOnValkey) -> None:
    await bucket.redis.hdel(bucket.keys.state, "remaining", "fenced")
    assert await fence_bucket(bucket.redis, bucket.keys) == FenceAnswer(
        FenceCode.FENCED, "0-0", -1, 0
    )


async def test_a_reading_is_one_picture(bucket: BucketOnValkey) -> None:
    state = await bucket.state()
    empty = await read_bucket(bucket.redis, bucket.keys)
    assert empty.state == state
    assert (empty.entries, empty.first_entry_id, empty.last_entry_id) == (0, "", "0-0")
    assert empty.oldest_age_ms == 0

    await bucket.place(an_order())
    await bucket.place(an_order("k2", "bob"))
    first, last = await bucket.entries()
    reading = await read_bucket(bucket.redis, bucket.keys)
    assert reading.state == replace(state, remaining=8, orders_placed=2, units_placed=2)
    assert reading.entries == 2
    assert (reading.first_entry_id, reading.last_entry_id) == (
        str(first.entry_id),
        str(last.entry_id),
    )
    assert reading.oldest_age_ms == reading.now_ms - first.placed_at_ms


async def test_a_reading_of_nothing(bucket: BucketOnValkey) -> None:
    await bucket.redis.delete(bucket.keys.state)
    reading = await read_bucket(bucket.redis, bucket.keys)
    assert reading.state is None
    assert reading.entries == 0


async def test_an_incomplete_state_is_broken(bucket: BucketOnValkey) -> None:
    await bucket.redis.hdel(bucket.keys.state, "limit")
    with pytest.raises(BrokenState):
        await read_bucket(bucket.redis, bucket.keys)
