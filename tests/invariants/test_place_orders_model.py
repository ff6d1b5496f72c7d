"""Random interleavings of everything that touches a bucket, against a model of twenty lines."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.inventory.bucket import (
    ForgottenKey,
    Gate,
    MoveAnswer,
    MoveCode,
    fence_bucket,
    return_units,
    top_up,
    withdraw_units,
)
from app.orders.stream import PlacementRequest, trim_stream
from app.storage.lua import load_scripts
from app.storage.redis import open_redis
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import (
    INCARNATION,
    BucketOnValkey,
    an_order,
    key_hash,
    told,
)
from tests.real_stores import RealStores

T = TypeVar("T")

LIMIT: Final = 2
STOCK: Final = 6
BACKLOG_MAX: Final = 5
LONG_AGO_MS: Final = 1
FAR_AHEAD_MS: Final = 9_999_999_999_999

KEYS: Final = ("k1", "k2", "k3", "k4", "k5", "k6")
SHOPPERS: Final = ("ann", "bob", "cat", "dan")

Told = tuple[str, int]


@dataclass(frozen=True)
class Click:
    """One order as the test thinks of it."""

    key: str
    content: str
    shopper: str
    quantity: int

    def request(self) -> PlacementRequest:
        return an_order(self.key, self.shopper, self.quantity, self.content)


@dataclass
class Model:
    """What a bucket must be, in plain Python."""

    remaining: int = STOCK
    placed: list[Click] = field(default_factory=list)  # by seq
    flushed: int = 0
    held: dict[str, int] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)  # key -> seq
    applied: dict[str, int] = field(default_factory=dict)  # move id -> units
    returned: set[int] = field(default_factory=set)  # seqs
    granted: int = STOCK
    gate: Gate = Gate.OPEN
    window: str = "open"
    is_fenced: bool = False

    def place(self, click: Click) -> Told:
        if self.is_fenced:
            return "STALE", 0
        if click.key in self.remembered:
            seq = self.remembered[click.key]
            same = self.placed[seq].content == click.content
            return ("REPLAY", seq) if same else ("KEY_MISMATCH", 0)
        return self._refusal(click) or self._accept(click)

    def _refusal(self, click: Click) -> Told | None:
        held = self.held.get(click.shopper, 0)
        checks = (
            (self.window == "before" and self.gate is not Gate.CLOSED, "NOT_OPEN", 0),
            (self.window == "after" or self.gate is Gate.CLOSED, "ENDED", 0),
            (self.gate is Gate.PAUSED, "PAUSED", 0),
            (held + click.quantity > LIMIT, "OVER_LIMIT", LIMIT - held),
            (click.quantity > self.remaining, "SOLD_OUT", self.remaining),
            (len(self.placed) - self.flushed >= BACKLOG_MAX, "BACKLOG_FULL", 0),
        )
        return next(((code, detail) for met, code, detail in checks if met), None)

    def _accept(self, click: Click) -> Told:
        seq = len(self.placed)
        self.placed.append(click)
        self.remembered[click.key] = seq
        self.held[click.shopper] = self.held.get(click.shopper, 0) + click.quantity
        self.remaining -= click.quantity
        return "PLACED", seq

    def live(self) -> list[int]:
        return [seq for seq in range(len(self.placed)) if seq not in self.returned]


clicks = st.builds(
    Click,
    key=st.sampled_from(KEYS),
    content=st.sampled_from("aaab"),
    shopper=st.sampled_from(SHOPPERS),
    quantity=st.sampled_from([1, 1, 1, 2, 3]),
)
move_ids = st.sampled_from(["m1", "m2", "m3", "m4"])


class BucketMachine(RuleBasedStateMachine):
    """The same acts on a real bucket and on the model."""

    stores: RealStores

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self._runner = asyncio.Runner()
        self._redis = open_redis(
            self.stores.redis_url, client_name="model", connect_timeout_ms=5_000
        )
        self._connection = ScriptConnection(self.stores.redis_api_url, client_name="model-hot")
        self.bucket = BucketOnValkey(self._redis, self._connection, self.stores.new_deployment())

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(act)

    def teardown(self) -> None:
        self.run(self._redis.delete(*self.bucket.keys.all))
        self.run(self._connection.close())
        self.run(self._redis.aclose())
        self._runner.close()

    @initialize()
    def open(self) -> None:
        self.run(load_scripts(self._redis, INCARNATION))
        self.run(self.bucket.open())
        self.run(self.bucket.change(limit=LIMIT, remaining=STOCK, backlog_max=BACKLOG_MAX))

    @rule(batch=st.lists(clicks, min_size=1, max_size=6))
    def place(self, batch: list[Click]) -> None:
        expected = [self.model.place(click) for click in batch]
        answers = self.run(self.bucket.place(*(click.request() for click in batch)))
        assert [told(answer) for answer in answers] == expected

    @precondition(lambda self: self.model.placed)
    @rule(data=st.data())
    def click_again(self, data: st.DataObject) -> None:
        self.place([data.draw(st.sampled_from(self.model.placed))])

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), is_dead_letter=st.booleans())
    def give_back(self, data: st.DataObject, *, is_dead_letter: bool) -> None:
        seq = data.draw(st.sampled_from(self.model.live()))
        order, move_id = self.model.placed[seq], f"return-{seq}"
        forgotten = None
        if is_dead_letter and self.model.remembered.get(order.key) == seq:
            remembered = self.run(self.bucket.remembered(order.key))
            assert remembered is not None
            forgotten = ForgottenKey(key_hash(order.key), remembered)
        act = {"shopper": order.shopper, "units": order.quantity, "forgotten": forgotten}
        answer = self.run(
            return_units(*self._at(), incarnation=INCARNATION, move_id=move_id, **act)
        )
        if not self.model.is_fenced:
            self.model.returned.add(seq)
            self.model.remaining += order.quantity
            self.model.held[order.shopper] -= order.quantity
            if forgotten:
                del self.model.remembered[order.key]
        self._check(answer, MoveCode.DONE, self.model.remaining)
        again = self.run(return_units(*self._at(), incarnation=INCARNATION, move_id=move_id, **act))
        self._check(again, MoveCode.ALREADY, self.model.remaining)

    @rule(move_id=move_ids, units=st.integers(1, 3))
    def add(self, move_id: str, units: int) -> None:
        move_id = f"top-up-{move_id}"
        answer = self.run(
            top_up(*self._at(), incarnation=INCARNATION, move_id=move_id, units=units)
        )
        is_new = move_id not in self.model.applied
        if is_new and not self.model.is_fenced:
            self.model.applied[move_id] = units
            self.model.remaining += units
            self.model.granted += units
        self._check(answer, MoveCode.DONE if is_new else MoveCode.ALREADY, self.model.remaining)

    @rule(move_id=move_ids, wanted=st.integers(1, 4))
    def take(self, move_id: str, wanted: int) -> None:
        move_id = f"withdrawal-{move_id}"
        answer = self.run(
            withdraw_units(
                *self._at(), incarnation=INCARNATION, move_id=move_id, units_wanted=wanted
            )
        )
        is_new = move_id not in self.model.applied
        if is_new and not self.model.is_fenced:
            taken = min(wanted, self.model.remaining)
            self.model.applied[move_id] = taken
            self.model.remaining -= taken
            self.model.granted -= taken
        units = self.model.applied.get(move_id, 0)
        self._check(answer, MoveCode.DONE if is_new else MoveCode.ALREADY, units)

    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        entries = self.run(self.bucket.entries())
        if not entries:
            return
        last = data.draw(st.sampled_from(entries))
        seen = last.orders_placed_before + len(last.orders)
        self.model.flushed = max(self.model.flushed, seen)
        assert self.run(trim_stream(*self._at(), last.entry_id, seen))

    @rule(gate=st.sampled_from([Gate.OPEN, Gate.OPEN, Gate.OPEN, Gate.PAUSED, Gate.CLOSED]))
    def set_gate(self, gate: Gate) -> None:
        self.model.gate = gate
        self.run(self.bucket.change(gate=gate))

    @rule(window=st.sampled_from(["open", "open", "open", "before", "after"]))
    def move_window(self, window: str) -> None:
        self.model.window = window
        opens_at_ms = FAR_AHEAD_MS if window == "before" else LONG_AGO_MS
        closes_at_ms = LONG_AGO_MS + 1 if window == "after" else FAR_AHEAD_MS
        self.run(self.bucket.change(opens_at_ms=opens_at_ms, closes_at_ms=closes_at_ms))

    @precondition(lambda self: len(self.model.placed) > BACKLOG_MAX)
    @rule()
    def fence(self) -> None:
        answer = self.run(fence_bucket(*self._at()))
        assert answer.remaining == self.model.remaining
        assert answer.orders_placed == len(self.model.placed)
        self.model.is_fenced = True

    @invariant()
    def the_bucket_is_as_the_model(self) -> None:
        model, numbers = self.model, self.bucket.numbers
        names = ("remaining", "orders_placed", "units_placed", "units_returned", "orders_flushed")
        assert self.run(numbers(*names)) == [
            model.remaining,
            len(model.placed),
            sum(order.quantity for order in model.placed),
            sum(model.placed[seq].quantity for seq in model.returned),
            model.flushed,
        ]
        assert self.run(self.bucket.held()) == {s: n for s, n in model.held.items() if n}

    @invariant()
    def no_unit_is_sold_twice_or_lost(self) -> None:
        live = sum(self.model.placed[seq].quantity for seq in self.model.live())
        assert self.model.remaining >= 0
        assert self.model.remaining + live == self.model.granted
        assert max(self.model.held.values(), default=0) <= LIMIT

    @invariant()
    def the_stream_holds_every_unflushed_order_once(self) -> None:
        entries = self.run(self.bucket.entries())
        seqs = [
            entry.orders_placed_before + i for entry in entries for i in range(len(entry.orders))
        ]
        assert seqs == list(range(self.model.flushed, len(self.model.placed)))
        kept = [order for entry in entries for order in entry.orders]
        assert kept == [self.model.placed[seq].request() for seq in seqs]

    def _at(self) -> tuple[Any, Any]:
        return self._redis, self.bucket.keys

    def _check(self, answer: MoveAnswer, code: MoveCode, units: int) -> None:
        expected = MoveAnswer(MoveCode.NOT_READY, 0) if self.model.is_fenced else (code, units)
        assert answer == expected


def test_a_bucket_does_what_the_model_does(stores: RealStores) -> None:
    BucketMachine.stores = stores
    run_state_machine_as_test(
        BucketMachine,
        settings=settings(
            max_examples=80,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
