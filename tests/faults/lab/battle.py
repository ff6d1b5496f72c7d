"""
A battle: one site, one crowd, and what has been done to them.

Every fault is a coroutine that does something unkind, waits until it can be seen to have bitten,
and fails if it never does. A fault that demands a recovery notes how long it took.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tests.faults.lab import disk
from tests.faults.lab.shoppers import Crowd
from tests.faults.lab.site import (
    APIS,
    COORDINATORS,
    SHARDS,
    VALKEY,
    WORKERS,
    LeaseRow,
    Site,
)
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

Fault: TypeAlias = Callable[["Battle"], Coroutine[Any, Any, None]]
BITE_SECONDS: Final = 8.0
REOPEN_SECONDS: Final = 60.0
# Killed again only so long after it last served, or nothing is ever sold.
SERVED_SECONDS: Final = {"api": 2.0, "worker": 2.0, "coordinator": 2.0, "valkey": 5.0, "shard": 5.0}


@asynccontextmanager
async def no_crowd_left(battle: "Battle") -> AsyncIterator[None]:
    """Leave nobody behind when the block fails."""
    try:
        yield
    except BaseException:
        await battle.abandon()
        raise


@dataclass(slots=True)
class Battle:
    """
    What is going on.

    Attributes:
        sales: ids, in the order of opening.
        losses: the disk was cut: tickets may be lost.
        recoveries: seconds from a server's death (or loss) to each bucket selling again.
        bites: name of each fault that has bitten, in order.
    """

    site: Site
    crowd: Crowd
    chance: random.Random
    losses: bool = False
    recoveries: list[float] = field(default_factory=list)
    bites: list[str] = field(default_factory=list)
    valkey_served_at: float = field(default_factory=time.monotonic)
    _later: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def sales(self) -> list[str]:
        return list(self.crowd.history.sales)

    def bit(self, what: str) -> None:
        self.bites.append(what)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the battle; `over` waits for it."""
        self._later.append(asyncio.get_running_loop().create_task(work))

    def tell(self, found: object) -> None:
        """Note for the end of the session what was done, what was found, how long it took."""
        self.site.recoveries += self.recoveries
        seconds = [round(one, 1) for one in self.recoveries]
        self.site.note(f"bites: {', '.join(self.bites)}; reopened after {seconds} s; {found}")

    async def abandon(self) -> None:
        """Stop whatever goes on: the test has failed."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        await self.crowd.abandon()

    async def over(self) -> None:
        """Wait for what is done beside the battle."""
        await asyncio.gather(*self._later)

    async def may_kill(self, name: str) -> None:
        """Wait until a process is up and has served for long enough to be killed."""
        process = self.site.processes[name]
        await eventually(lambda: process.is_running and process.served_at > 0, within_seconds=60)
        served_at = self.valkey_served_at if name == VALKEY else process.served_at
        wait = served_at + SERVED_SECONDS[name.partition("-")[0]] - time.monotonic()
        await let_pass(max(0.0, wait))

    async def epochs(self) -> dict[tuple[int, int], int]:
        async def all_leases() -> list[LeaseRow]:
            leases = await self.site.leases(self.sales)
            return leases if len({row.sale for row in leases}) == len(self.sales) else []

        leases = await eventually(all_leases, within_seconds=REOPEN_SECONDS)
        return {(row.sale, row.bucket): row.epoch for row in leases}

    async def reopened(self, before: dict[tuple[int, int], int], died_at: float) -> None:
        """Wait until each bucket sells in a new epoch; note how long each was away."""
        waiting = set(before)

        async def none_waits() -> bool:
            for row in await self.site.leases(self.sales):
                name = (row.sale, row.bucket)
                is_new = name in waiting and row.epoch > before[name] and row.state == "open"
                if is_new and await self.site.runs(row):
                    waiting.discard(name)
                    self.recoveries.append(time.monotonic() - died_at)
            return not waiting

        await eventually(none_waits, within_seconds=REOPEN_SECONDS)
        self.valkey_served_at = time.monotonic()


async def valkey_killed(battle: Battle) -> None:
    """Row 1: kill -9; the log is whole."""
    await battle.may_kill(VALKEY)
    before = await battle.epochs()
    died_at = time.monotonic()
    await battle.site.restart(VALKEY, battle.chance.uniform(0.1, 0.6))
    await battle.reopened(before, died_at)
    battle.bit("valkey_killed")


async def tail_cut(battle: Battle) -> None:
    """Row 2: the end of the log is gone with the power."""
    await battle.may_kill(VALKEY)
    before = await battle.epochs()
    site, process = battle.site, battle.site.processes[VALKEY]
    died_at = time.monotonic()
    process.kill()
    battle.losses = True
    lost = disk.cut_tail(site.valkey_folder, battle.chance.randint(50, 20_000))
    await process.start()
    await battle.reopened(before, died_at)
    battle.bit(f"tail_cut {lost}")


async def valkey_emptied(battle: Battle) -> None:
    """Row 3: nothing is left of the server's data."""
    await battle.may_kill(VALKEY)
    before = await battle.epochs()
    process = battle.site.processes[VALKEY]
    died_at = time.monotonic()
    process.kill()
    battle.losses = True
    disk.remove_all(battle.site.valkey_folder)
    await process.start()
    await battle.reopened(before, died_at)
    battle.bit("valkey_emptied")


async def scripts_flushed(battle: Battle) -> None:
    """
    Row 7: somebody types SCRIPT FLUSH.

    The first bucket that notices gets a new epoch, and the scripts with it; for the others
    nothing was lost, and their leases are renewed.
    """
    before = await battle.epochs()
    flushed_at = time.monotonic()
    async with battle.site.redis() as redis:
        await redis.script_flush()

    async def one_has_moved_on() -> bool:
        return any(
            row.epoch > before[row.sale, row.bucket] and row.state == "open"
            for row in await battle.site.leases(battle.sales)
        )

    await eventually(one_has_moved_on, within_seconds=REOPEN_SECONDS)
    await battle.site.until_selling(battle.sales)
    battle.recoveries.append(time.monotonic() - flushed_at)
    battle.bit("scripts_flushed")


async def valkey_frozen(battle: Battle) -> None:
    """Row 8: the server stands still; its clients wait, give up, come again."""
    process = battle.site.processes[VALKEY]
    if not process.is_running:
        return
    frozen_at = time.monotonic()
    process.freeze()
    await let_pass(battle.chance.uniform(0.6, 3.0))
    if process.is_running:
        process.thaw()
    seconds = time.monotonic() - frozen_at

    def somebody_waited() -> bool:
        return any(
            click.answered_at >= frozen_at + 0.3 * seconds and click.sent_at <= frozen_at + seconds
            for click in battle.crowd.history.clicks[-500:]
        )

    await eventually(somebody_waited, within_seconds=BITE_SECONDS)
    battle.bit("valkey_frozen")


async def role_killed(battle: Battle, role: str) -> None:
    """Kill a role with -9 in the middle of whatever it does, and start it beside the battle."""
    await battle.may_kill(role)
    battle.site.processes[role].kill()
    battle.later(battle.site.start_later(role, 0.2))
    battle.bit(f"{role}_killed")


async def worker_killed(battle: Battle) -> None:
    await role_killed(battle, battle.chance.choice(WORKERS))


async def api_killed(battle: Battle) -> None:
    await role_killed(battle, battle.chance.choice(APIS))


async def coordinator_killed(battle: Battle) -> None:
    await role_killed(battle, battle.chance.choice(COORDINATORS))


async def worker_frozen(battle: Battle) -> None:
    """A worker stands still for longer than its locks live, or less."""
    await _freeze(battle, battle.chance.choice(WORKERS), battle.chance.uniform(0.5, 6.0))


async def coordinator_frozen(battle: Battle) -> None:
    await _freeze(battle, battle.chance.choice(COORDINATORS), battle.chance.uniform(0.5, 6.0))


async def api_frozen(battle: Battle) -> None:
    await _freeze(battle, battle.chance.choice(APIS), battle.chance.uniform(0.5, 3.0))


async def shard_frozen(battle: Battle) -> None:
    await _freeze(battle, battle.chance.choice(SHARDS), battle.chance.uniform(0.5, 3.0))


async def _freeze(battle: Battle, name: str, seconds: float) -> None:
    process = battle.site.processes[name]
    if not process.is_running:
        return
    process.freeze()
    await let_pass(seconds)
    if process.is_running:
        process.thaw()
        battle.bit(f"{name}_frozen {seconds:.1f} s")


async def shard_killed(battle: Battle) -> None:
    """Row 17: a shard's server dies and comes back on its log."""
    name = battle.chance.choice(SHARDS)
    await battle.may_kill(name)
    await battle.site.restart(name, battle.chance.uniform(0.2, 1.5))
    battle.bit(f"{name}_killed")


async def replies_dropped(battle: Battle) -> None:
    """Row 9: the script ran, and its reply never came."""
    link = battle.site.link(battle.chance.choice(APIS), VALKEY)
    before = link.bites.dropped
    link.drop_replies(b"EVALSHA", times=battle.chance.randint(1, 4))
    await eventually(lambda: link.bites.dropped > before, within_seconds=30)
    battle.bit("replies_dropped")


async def requests_cut(battle: Battle) -> None:
    """Row 10: half a request."""
    link = battle.site.link(battle.chance.choice(APIS), VALKEY)
    before = link.bites.cut
    link.cut_requests(b"EVALSHA", times=battle.chance.randint(1, 4))
    await eventually(lambda: link.bites.cut > before, within_seconds=30)
    battle.bit("requests_cut")


async def commits_unanswered(battle: Battle) -> None:
    """Row 18: the commit was done, and nobody was told."""
    links = battle.site.links(WORKERS, [battle.chance.choice(SHARDS)])
    before = sum(link.bites.dropped for link in links)
    for link in links:
        link.drop_replies(b"COMMIT", times=2)
    await eventually(lambda: sum(link.bites.dropped for link in links) > before, within_seconds=30)
    battle.bit("commits_unanswered")


async def partitioned(battle: Battle) -> None:
    """One role and one store hear nothing of each other for a while, in one way or both."""
    role = battle.chance.choice((*APIS, *WORKERS, *COORDINATORS))
    link = battle.site.link(role, battle.chance.choice((VALKEY, VALKEY, *SHARDS)))
    held = link.bites.held_bytes
    link.hold()
    await let_pass(battle.chance.uniform(0.4, 5.0))
    deliver_late = battle.chance.random() < 0.5
    link.release() if deliver_late else link.heal()
    if link.bites.held_bytes > held:
        battle.bit(f"{role}_partitioned")


async def connections_reset(battle: Battle) -> None:
    """Every connection of one role breaks at once."""
    role = battle.chance.choice((*APIS, *WORKERS, *COORDINATORS))
    links = battle.site.links([role])
    before = sum(link.bites.broken for link in links)
    for link in links:
        link.reset()
    if sum(link.bites.broken for link in links) > before:
        battle.bit(f"{role}_reset")


async def locks_taken(battle: Battle) -> None:
    """Row 15: whoever holds a shard's locks loses them without knowing."""
    shard = battle.chance.choice(SHARDS)
    if await battle.site.take_locks(shard):
        battle.bit("locks_taken")


async def links_slow(battle: Battle) -> None:
    """The way to Valkey becomes long."""
    links = battle.site.links((*APIS, *WORKERS), [VALKEY])
    for link in links:
        link.latency_seconds = battle.chance.uniform(0.005, 0.05)
    await let_pass(battle.chance.uniform(0.5, 1.5))
    for link in links:
        link.latency_seconds = 0.0
    battle.bit("links_slow")
