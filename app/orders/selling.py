"""
Selling from one bucket: all clicks that wait go to the script in one call.

What the script refuses is an answer; what it never said is named for what it
is: recovering and overloaded wrote nothing, unknown may have.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol, TypeAlias

from app.kernel.errors import (
    BrokenState,
    DoorbusterError,
    OutcomeUnknown,
    RedisUnavailable,
    ScriptMissing,
)
from app.kernel.group_commit import GroupCommit, Waiter
from app.kernel.ids import OrderId, OrderKey, shopper_tag
from app.orders.answers import (
    Answer,
    PlaceCode,
    Placed,
    PlaceReply,
    Refused,
    Replay,
    read_answer,
)
from app.orders.route import BucketRoute, Route
from app.orders.sealing import OrderIds
from app.orders.stream import PlacementRequest, place_orders
from app.storage.script_connection import ScriptConnection
from app.storage.server_clock import ServerClock

_ACCEPTED: Final = (Placed, Replay)
FULL: Final = read_answer([PlaceCode.BACKLOG_FULL, 0])
_FULL_SECONDS: Final = 0.05  # then one batch asks again; a flush drains hundreds meanwhile
_MEDIAN_STEP: Final = 0.05  # how fast the moving median follows
_WAIT_FACTOR: Final = 3  # a queue may wait this many script calls, if that is more than 50 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """How clicks become batches."""

    batch_orders_max: int = 256  # of one script call (docs/HOT_PATH.md §3)
    calls_at_once_max: int = 2  # per bucket and process: one runs while one travels
    call_timeout_ms: int = 1_000  # for a script's answer; then it is asked once more
    queue_wait_ms_max: int = 50  # a click that waited longer is refused before it is sent

    def __post_init__(self) -> None:
        assert 1 <= self.batch_orders_max <= 1_024
        assert 1 <= self.calls_at_once_max <= 16
        assert 0 < self.queue_wait_ms_max <= self.call_timeout_ms


class NotPlaced(Enum):
    """Why a click got no answer of the script."""

    RECOVERING = "recovering"
    OVERLOADED = "overloaded"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Accepted(NamedTuple):
    """An order that stands in the stream, or was accepted before."""

    key: OrderKey
    order_id: OrderId
    placed_at_ms: int
    is_replay: bool
    entry_id: bytes  # of the stream entry; b"" for a replay


Outcome: TypeAlias = Accepted | Answer | NotPlaced


class PlacementObserver(Protocol):
    """Who hears of script calls: telemetry."""

    def called(self, orders: int, seconds: float) -> None:
        """Note one call of place_orders."""
        ...

    def refused(self, sale: int, bucket: int, error: DoorbusterError) -> None:
        """Note that Redis takes nothing for this bucket."""
        ...

    def answered(self, sale: int, bucket: int) -> None:
        """Note that it takes orders (again)."""
        ...

    def broken(self, sale: int, bucket: int, epoch: int, error: DoorbusterError) -> None:
        """Note an epoch whose state cannot be."""
        ...


class BucketCounter:
    """Where this process sells the units of one bucket."""

    def __init__(  # noqa: PLR0913, PLR0917  collaborators, each once
        self,
        route: BucketRoute,
        ids: OrderIds,
        connections: Sequence[ScriptConnection],
        clock: ServerClock,
        settings: PlacementSettings,
        observer: PlacementObserver,
    ) -> None:
        self.route = route
        self._ids = ids
        self._idle = list(connections)
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._call_seconds = 0.0
        self._full_until = 0.0  # monotonic seconds
        self._queue: GroupCommit[PlacementRequest, Outcome] = GroupCommit(
            self._sell,
            items_max=settings.batch_orders_max,
            calls_max=len(connections),
        )

    async def sell(self, request: PlacementRequest) -> Outcome:
        """Place one order with the next batch of this bucket."""
        return FULL if self.is_full() else await self._queue.put(request)

    def sell_nowait(self, request: PlacementRequest, waiter: Waiter[Outcome]) -> None:
        """Place one order with the next batch of this bucket, and have `waiter` told."""
        self._queue.put_nowait(request, waiter)

    def is_full(self) -> bool:
        """
        Say whether the script has just answered BACKLOG_FULL to a whole batch.

        Then everybody hears the same for a moment without asking it: a refusal must cost
        a fraction of an order, or the crowd of those refused takes the time of the others.
        It is never so of an answer that is final, which a winner's retry could hear.
        """
        return time.monotonic() < self._full_until

    async def close(self) -> None:
        """Answer everybody, then close the connections."""
        await self._queue.drain()
        await self.route.close()
        for connection in self._idle:
            await connection.close()

    async def _sell(self, requests: Sequence[PlacementRequest]) -> Sequence[Outcome]:
        route = self.route.current
        if route is None:
            return [NotPlaced.RECOVERING] * len(requests)
        connection = self._idle.pop()
        began = time.monotonic()
        try:
            reply = await self._ask(connection, route, requests)
        except OutcomeUnknown:
            outcomes = await self._ask_again(connection, route, requests)
            self._note_call(len(requests), time.monotonic() - began)
            return outcomes
        except ScriptMissing:
            self.route.distrust(route)
            return [NotPlaced.RECOVERING] * len(requests)
        except RedisUnavailable as error:
            self._observer.refused(*self.route.name, error)
            # Not sent, or refused: the route stands, its scripts know their server. To
            # read it anew would need Postgres, and stop selling when both hiccup.
            return [NotPlaced.RECOVERING] * len(requests)
        except BrokenState as error:
            self._break(route, error)
            return [NotPlaced.BROKEN] * len(requests)
        finally:
            self._idle.append(connection)
        self._note_call(len(requests), time.monotonic() - began)
        outcomes = self._outcomes(route, reply, requests)
        if all(outcome is FULL for outcome in outcomes):
            self._full_until = time.monotonic() + _FULL_SECONDS
        return outcomes

    async def _ask(
        self,
        connection: ScriptConnection,
        route: Route,
        requests: Sequence[PlacementRequest],
    ) -> PlaceReply:
        reply = await place_orders(
            connection,
            route.script,
            route.names,
            requests,
            timeout_ms=self._settings.call_timeout_ms,
        )
        self._clock.observe(reply.now_ms)
        return reply

    async def _ask_again(
        self,
        connection: ScriptConnection,
        route: Route,
        requests: Sequence[PlacementRequest],
    ) -> Sequence[Outcome]:
        """
        Repeat a batch whose outcome is unknown, once, with the same keys and epoch.

        Only PLACED and REPLAY are certain now: the first call may still be on its
        way, so a refusal of the second proves nothing (docs/CORRECTNESS.md §2).
        """
        try:
            reply = await self._ask(connection, route, requests)
        except ScriptMissing:
            self.route.distrust(route)
            return [NotPlaced.UNKNOWN] * len(requests)
        except (RedisUnavailable, OutcomeUnknown):
            return [NotPlaced.UNKNOWN] * len(requests)
        except BrokenState as error:
            self._break(route, error)
            return [NotPlaced.UNKNOWN] * len(requests)
        return [
            outcome if isinstance(outcome, Accepted) else NotPlaced.UNKNOWN
            for outcome in self._outcomes(route, reply, requests)
        ]

    def _break(self, route: Route, error: BrokenState) -> None:
        """Sell no more from an epoch whose state cannot be, and say so aloud."""
        self.route.mark_broken(route)
        self._observer.broken(*self.route.name, route.epoch, error)

    def _outcomes(
        self, route: Route, reply: PlaceReply, requests: Sequence[PlacementRequest]
    ) -> list[Outcome]:
        """Turn the script's answers into outcomes; one call of the cipher makes all ids."""
        key_of = self.route.key_of
        keys = [
            (key_of(route, answer), shopper_tag(request.shopper))
            for answer, request in zip(reply.answers, requests, strict=True)
            if isinstance(answer, _ACCEPTED)
        ]
        ids = iter(zip(keys, self._ids.write_batch(keys), strict=True))
        now_ms, entry_id = reply.now_ms, reply.entry_id
        outcomes: list[Outcome] = []
        for answer in reply.answers:
            if isinstance(answer, Placed):
                (key, _), order_id = next(ids)
                outcomes.append(Accepted(key, order_id, now_ms, is_replay=False, entry_id=entry_id))
            elif isinstance(answer, Replay):
                (key, _), order_id = next(ids)
                at_ms = answer.placed_at_ms
                outcomes.append(Accepted(key, order_id, at_ms, is_replay=True, entry_id=b""))
            elif isinstance(answer, Refused) and answer.code is PlaceCode.STALE:
                self.route.distrust(route)
                outcomes.append(NotPlaced.RECOVERING)
            else:
                outcomes.append(answer)
        return outcomes

    def _note_call(self, orders: int, seconds: float) -> None:
        """Follow the median of the call times, and refuse what has waited too long."""
        step = _MEDIAN_STEP * max(self._call_seconds, 0.001)
        self._call_seconds += step if seconds > self._call_seconds else -step
        self._observer.called(orders, seconds)
        self._observer.answered(*self.route.name)
        wait_max = max(self._settings.queue_wait_ms_max / 1000, _WAIT_FACTOR * self._call_seconds)
        self._queue.shed(wait_max, NotPlaced.OVERLOADED)
