"""Random interleavings of everything that touches a group sale's bucket, against a model."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
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

from app.inventory.bucket import MoveAnswer, MoveCode
from app.inventory.seats import GroupEntry, return_group_units, set_seats
from app.kernel.clock import unix_ms
from app.orders.stream import PlacementRequest
from app.storage.lua import load_scripts
from app.storage.redis import open_redis
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import EPOCH, INCARNATION, an_order, told
from tests.lua.group_on_valkey import GROUP_SIZE, GroupBucketOnValkey
from tests.real_stores import RealStores

T = TypeVar("T")

LIMIT: Final = 2
STOCK: Final = 12
ENDS_AT: Final = datetime.fromisoformat("2030-01-01T00:00:00+00:00")

KEYS: Final = tuple(f"k{i}" for i in range(9))
SHOPPERS: Final = ("ann", "bob", "cat", "dan", "eve", "fay")

Told = tuple[str, int]


@dataclass(frozen=True)
class Click:
    """One order as the test thinks of it; `group` is "new" or the seq of the order that opened."""

    key: str
    content: str
    shopper: str
    quantity: int
    group: str

    def request(self) -> PlacementRequest:
        return an_order(self.key, self.shopper, self.quantity, self.content)._replace(
            group=self.group
        )


@dataclass
class Group:
    """A group in the model."""

    seats: int = 0
    is_shut: bool = False
    is_over: bool = False  # its time


@dataclass
class Model:
    """What a bucket of a group sale must be, in plain Python."""

    remaining: int = STOCK
    placed: list[tuple[Click, str]] = field(default_factory=list)  # by seq, with its group
    returned: set[int] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)

    def place(self, click: Click) -> Told:
        if click.key in self.remembered:
            seq = self.remembered[click.key]
            same = self.placed[seq][0].content == click.content
            return ("REPLAY", seq) if same else ("KEY_MISMATCH", 0)
        return self._refusal(click) or self._accept(click)

    def _refusal(self, click: Click) -> Told | None:
        held = self.held.get(click.shopper, 0)
        group = Group() if click.group == "new" else self.groups.get(click.group)
        checks = (
            (group is None, "GROUP_NOT_FOUND", 0),
            (group is not None and group.seats >= GROUP_SIZE, "GROUP_FULL", 0),
            (group is not None and (group.is_shut or group.is_over), "GROUP_EXPIRED", 0),
            (click.shopper in self.members, "IN_ANOTHER_GROUP", 0),
            (held + click.quantity > LIMIT, "OVER_LIMIT", LIMIT - held),
            (click.quantity > self.remaining, "SOLD_OUT", self.remaining),
        )
        return next(((code, detail) for met, code, detail in checks if met), None)

    def _accept(self, click: Click) -> Told:
        seq = len(self.placed)
        name = f"{EPOCH}.{seq}" if click.group == "new" else click.group
        self.placed.append((click, name))
        self.remembered[click.key] = seq
        self.held[click.shopper] = self.held.get(click.shopper, 0) + click.quantity
        self.remaining -= click.quantity
        self.groups.setdefault(name, Group()).seats += 1
        self.members[click.shopper] = name
        return "PLACED", seq

    def live(self) -> list[int]:
        return [seq for seq in range(len(self.placed)) if seq not in self.returned]


clicks = st.builds(
    Click,
    key=st.sampled_from(KEYS),
    content=st.sampled_from("aaab"),
    shopper=st.sampled_from(SHOPPERS),
    quantity=st.sampled_from([1, 1, 1, 2, 3]),
    group=st.sampled_from(["new", *(f"{EPOCH}.{seq}" for seq in (0, 0, 0, 1, 2, 3, 99))]),
)


class GroupMachine(RuleBasedStateMachine):
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
        self.bucket = GroupBucketOnValkey(
            self._redis, self._connection, self.stores.new_deployment()
        )

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
        self.run(self.bucket.change(limit=LIMIT, remaining=STOCK))

    @rule(batch=st.lists(clicks, min_size=1, max_size=6))
    def place(self, batch: list[Click]) -> None:
        self.run(self.bucket.renew())
        expected = [self.model.place(click) for click in batch]
        answers = self.run(self.bucket.place(*(click.request() for click in batch)))
        assert [told(answer) for answer in answers] == expected

    @precondition(lambda self: self.model.live())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.model.live()))
        click, name = self.model.placed[seq]
        act = {"move_id": f"return-{seq}", "shopper": click.shopper, "units": click.quantity}
        answers = [
            self.run(
                return_group_units(
                    self._redis, self.bucket.keys, incarnation=INCARNATION, group=name, **act
                )
            )
            for _ in range(2)
        ]
        self.model.returned.add(seq)
        self.model.remaining += click.quantity
        self.model.held[click.shopper] -= click.quantity
        if not self.model.groups[name].is_shut:
            self.model.groups[name].seats -= 1
        if self.model.members.get(click.shopper) == name:
            del self.model.members[click.shopper]
        remaining = self.model.remaining
        assert answers == [
            MoveAnswer(MoveCode.DONE, remaining),
            MoveAnswer(MoveCode.ALREADY, remaining),
        ]

    @precondition(lambda self: any(not group.is_shut for group in self.model.groups.values()))
    @rule(data=st.data(), ends=st.sampled_from(["shut", "formed", "failed", "merged"]))
    def settle(self, data: st.DataObject, ends: str) -> None:
        name = data.draw(
            st.sampled_from([n for n, group in self.model.groups.items() if not group.is_shut])
        )
        others = [other for other in self.model.groups if other != name]
        into = data.draw(st.sampled_from(others)) if ends == "merged" and others else None
        seats = {"formed": GROUP_SIZE, "failed": 0, "merged": 0}.get(ends)
        listed = [who for who, where in self.model.members.items() if where == name]
        leaving = listed if ends != "shut" else []
        answer = self.run(
            set_seats(
                self._redis,
                self.bucket.keys,
                incarnation=INCARNATION,
                move_id=f"seats-{name}",
                group=name,
                seats=seats,
                expires_at=ENDS_AT,
                members=[*leaving, "nobody"],
                members_group=into,
            )
        )
        assert answer == MoveAnswer(MoveCode.DONE, len(self.model.placed))
        group = self.model.groups[name]
        group.is_shut = True
        group.seats = group.seats if seats is None else seats
        for who in leaving:
            if into is None:
                del self.model.members[who]
            else:
                self.model.members[who] = into

    @precondition(lambda self: any(not group.is_shut for group in self.model.groups.values()))
    @rule(data=st.data())
    def let_time_pass(self, data: st.DataObject) -> None:
        name = data.draw(
            st.sampled_from([n for n, group in self.model.groups.items() if not group.is_shut])
        )
        seats = self.model.groups[name].seats
        self.run(self.bucket.set_group(name, GroupEntry(seats, 1, is_shut=False)))
        self.model.groups[name].is_over = True

    @invariant()
    def the_bucket_is_as_the_model(self) -> None:
        model = self.model
        assert self.run(self.bucket.numbers("remaining", "orders_placed")) == [
            model.remaining,
            len(model.placed),
        ]
        assert self.run(self.bucket.held()) == {who: n for who, n in model.held.items() if n}
        assert self.run(self.bucket.members()) == model.members
        groups = self.run(self.bucket.groups())
        assert {name: (entry.seats, entry.is_shut) for name, entry in groups.items()} == {
            name: (group.seats, group.is_shut) for name, group in model.groups.items()
        }
        ends = {name for name, entry in groups.items() if entry.expires_at_ms == unix_ms(ENDS_AT)}
        assert ends == {name for name, group in model.groups.items() if group.is_shut}

    @invariant()
    def no_seat_is_sold_twice(self) -> None:
        live = [self.model.placed[seq] for seq in self.model.live()]
        assert sum(click.quantity for click, _ in live) + self.model.remaining == STOCK
        for name, group in self.model.groups.items():
            sitting = sum(where == name for _, where in live)
            assert sitting <= GROUP_SIZE
            assert group.is_shut or group.seats == sitting

    @invariant()
    def the_stream_names_every_group(self) -> None:
        entries = self.run(self.bucket.entries())
        kept = [order for entry in entries for order in entry.orders]
        assert [order.group for order in kept] == [name for _, name in self.model.placed]


def test_a_bucket_of_groups_does_what_the_model_does(stores: RealStores) -> None:
    GroupMachine.stores = stores
    run_state_machine_as_test(
        GroupMachine,
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
