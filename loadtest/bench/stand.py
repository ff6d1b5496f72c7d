"""
The test stand: a whole service of its own in a fresh folder, and the rivals beside it.

Each variant gets a fresh one, so that no figure depends on what was measured
before, and nothing idles beside what is measured.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from app.embedded.all_in_one import PROGRAM, UpOptions, everything_running
from app.embedded.ports import free_port
from app.embedded.probes import listens
from app.embedded.programs import leashed
from app.embedded.run_file import RunFile, read_run_file
from app.embedded.store_notes import read_notes
from app.embedded.stores import DEPLOYMENT
from app.embedded.supervisor import RoleRestarted
from app.inventory.queues import read_all_queues
from app.kernel.equation import Equation, Verdict, equal, verdict_of
from app.settlement.full_audit import audit_all
from app.storage.redis import open_redis
from app.storage.shards import Database, DatabaseSettings, Shards
from loadtest.bench.deck import Deck
from loadtest.client import Client, bearer, document
from loadtest.errors import Refused
from loadtest.tokens import Signer

BUCKETS: Final = 2  # a sale of two buckets is flushed to two shards at the same time
READY_SECONDS_MAX: Final = 30.0
REST_SECONDS_MAX: Final = 120.0
_LOOK_SECONDS: Final = 0.05

NOT_DRAINED: Final = "accepted orders without a row"
NOT_OPENED: Final = "the sale did not open"
NOT_STARTED: Final = "a rival did not start"
PLAYED_OUT: Final = "the clicks prepared did not last"

SELECT_SEEN: Final = "SELECT coalesce(sum(orders_seen), 0) FROM bucket_leases WHERE sale = $1"
COUNT_ROWS: Final = "SELECT count(*) FROM orders WHERE sale = $1"


class NotMeasured(Exception):
    """A variant came to no figure."""

    def __init__(self, what: str, **fields: object) -> None:
        told = ", ".join(f"{name} {value}" for name, value in fields.items())
        super().__init__(f"{what} ({told})" if told else what)


@dataclass(frozen=True, slots=True)
class OpenSale:
    """A sale that takes orders."""

    id: str
    number: int


class Stand:
    """A running service, seen as one who measures it."""

    def __init__(self, run: RunFile, shards: Shards, ledger: Database, redis: Redis) -> None:
        self.redis = redis
        self.shards = shards
        self.data_dir = Path(run.data_dir)
        self._admin = Client(run.admin, connections_max=2, timeout_seconds=30.0)
        self._authorization = bearer(run.admin_token)
        self._ledger = ledger
        self._signer = Signer.from_keys(run.auth_keys)
        self.port = int(run.public.rpartition(":")[2])

    def close(self) -> None:
        self._admin.close()

    @property
    def run(self) -> RunFile:
        """What run.json says now; process ids change with restarts."""
        return read_run_file(self.data_dir)

    @property
    def processes(self) -> dict[str, tuple[int, ...]]:
        """Process ids by role, in the order in which an order meets them."""
        pids = self.run.pids
        assert pids.valkey is not None
        assert pids.postgres is not None
        return {
            "api": pids.api,
            "valkey": (pids.valkey,),
            "worker": pids.worker,
            "postgres": (pids.postgres,),
            "coordinator": (pids.coordinator,),
        }

    def deck(self, sale: OpenSale, count: int, **more: Any) -> Deck:  # noqa: ANN401  fields of Deck
        """Give clicks for a sale."""
        host = f"127.0.0.1:{self.port}"
        return Deck(host=host, sale=sale.id, signer=self._signer, run=sale.id, count=count, **more)

    async def open_sale(self, stock: int) -> OpenSale:
        """
        Create and publish a sale over two shards, limit 1; wait until it takes orders.

        Raises:
            Refused: it was not created or not published.
            NotMeasured: its buckets did not open.
        """
        now = datetime.now(UTC)
        body = {
            "id": f"bench-{secrets.token_hex(4)}",
            "title": "A sale of the bench",
            "sku": "sku-bench",
            "merchant": "bench",
            "stock": stock,
            "price_minor": 8_880,
            "currency": "CNY",
            "limit_per_shopper": 1,
            "opens_at": now.isoformat(),
            "closes_at": (now + timedelta(hours=1)).isoformat(),
            "pay_within_seconds": 3_600,
            "buckets": BUCKETS,
        }
        made = await self._post("/admin/v1/sales", body)
        await self._post(f"/admin/v1/sales/{made['id']}/publish", {"reason": "bench"})
        sale = OpenSale(made["id"], made["number"])
        await self._wait_until_open(sale)
        return sale

    async def backlog(self) -> int:
        """Count accepted orders without a row, over all queues."""
        queues = await read_all_queues(self.shards, self.redis, DEPLOYMENT)
        return queues.totals.orders

    async def rows(self, sale: OpenSale) -> int:
        """Count the orders of a sale that are committed, by the lease rows."""
        return await self._sum(SELECT_SEEN, sale)

    async def drain(self) -> float:
        """
        Wait until every accepted order has its row; tell how long that took.

        Raises:
            NotMeasured: it took more than two minutes.
        """
        began = time.monotonic()
        while await self.backlog():
            if time.monotonic() - began > REST_SECONDS_MAX:
                raise NotMeasured(NOT_DRAINED, seconds=REST_SECONDS_MAX)
            await asyncio.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    async def script_calls(self) -> int:
        """Count the script calls of the Valkey so far; under load nearly all place orders."""
        return int((await self.redis.info("commandstats"))["cmdstat_evalsha"]["calls"])

    async def memory_bytes(self) -> int:
        """Tell how much memory the Valkey has given out."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def rewrite_log(self) -> float:
        """Have the append-only file rewritten; tell how many seconds that took."""
        began = time.monotonic()
        await self.redis.bgrewriteaof()
        while True:
            persistence = await self.redis.info("persistence")
            under_way = persistence["aof_rewrite_in_progress"]
            if not under_way and not persistence["aof_rewrite_scheduled"]:
                return time.monotonic() - began
            await asyncio.sleep(_LOOK_SECONDS)

    def signal_worker(self, number: signal.Signals) -> None:
        """Stop, continue or end the worker; the supervisor starts one that has ended anew."""
        for pid in self.run.pids.worker:
            os.kill(pid, number)

    async def audit(self, sale: OpenSale, placed: int, unknown: int = 0) -> list[Equation]:
        """
        Judge every invariant, and that each accepted answer has its row.

        Args:
            sale: the only one that was sold from since the last audit.
            placed: answers that said "accepted" for the first time.
            unknown: clicks without an answer; each may have become an order.

        Returns:
            Only what does not hold; empty is good.
        """
        await self.drain()
        rows = await self._sum(COUNT_ROWS, sale)
        more = min(max(0, rows - placed), unknown)
        lost = equal("P2", f"sale {sale.id}", ("rows", rows), ("accepted", placed + more))
        deadline = time.monotonic() + REST_SECONDS_MAX
        while True:
            equations = await audit_all(self.shards, self.redis, self._ledger, DEPLOYMENT, sale.id)
            if verdict_of(equations) is Verdict.HOLDS or time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return [one for one in (lost, *equations) if one.holds is False]

    async def _sum(self, statement: str, sale: OpenSale) -> int:
        total = 0
        for shard in self.shards.all:
            async with shard.connection() as connection:
                total += int(await connection.fetchval(statement, sale.number))
        return total

    async def _wait_until_open(self, sale: OpenSale) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            queues = await read_all_queues(self.shards, self.redis, DEPLOYMENT)
            mine = [queue for queue in queues.queues if queue.sale == sale.id]
            if len(mine) == BUCKETS and all(
                queue.state == "open" and queue.owner for queue in mine
            ):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise NotMeasured(NOT_OPENED, sale=sale.id, seconds=READY_SECONDS_MAX)

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        headers = f"{self._authorization}Idempotency-Key: {secrets.token_hex(16)}\r\n"
        reply = await self._admin.call("POST", path, headers=headers, body=body)
        if reply.status not in {200, 201}:
            raise Refused(path, reply.status, reply.body)
        return document(reply)


@asynccontextmanager
async def running_stand(
    folder: Path, api_processes: int, settings: Mapping[str, str]
) -> AsyncGenerator[Stand]:
    """
    Start a service in an empty folder; stop it at the end.

    Args:
        folder: new, for this one.
        api_processes: that take orders.
        settings: environment variables that differ from the defaults.
    """
    changed = tuple(f"{name}={value}" for name, value in settings.items())
    options = UpOptions(
        workers=api_processes,
        port=0,
        admin_port=0,
        data_dir=folder,
        program=("/usr/bin/env", *changed, *PROGRAM) if changed else PROGRAM,
    )
    async with AsyncExitStack() as opened:
        opened.callback(_forget_postgres, folder)
        run = await opened.enter_async_context(everything_running(options, _take_no_notice))
        shards = Shards(run.shards, DatabaseSettings(statement_timeout_ms=60_000))
        opened.push_async_callback(shards.close)
        await shards.read_map()
        ledger = Database(run.ledger, DatabaseSettings())
        opened.push_async_callback(ledger.close)
        redis = open_redis(run.redis, client_name="bench", call_timeout_ms=60_000)
        opened.push_async_callback(redis.aclose)
        stand = Stand(run, shards, ledger, redis)
        opened.callback(stand.close)
        yield stand


@asynccontextmanager
async def running_rival(kind: str, processes: int) -> AsyncGenerator[tuple[int, Sequence[int]]]:
    """
    Start `rivals.py` so many times on one port.

    Yields:
        The port and the process ids.
    """
    port = free_port()
    command = (sys.executable, "-m", "loadtest.bench.rivals", kind, str(port))
    started = [
        await asyncio.create_subprocess_exec(*leashed(command, orphan_signal=signal.SIGKILL))
        for _ in range(processes)
    ]
    try:
        await asyncio.gather(*(_wait_until_serving(one.pid, port) for one in started))
        yield port, [one.pid for one in started]
    finally:
        for one in started:
            with contextlib.suppress(ProcessLookupError):
                one.kill()
            await one.wait()


async def _wait_until_serving(pid: int, port: int) -> None:
    """Wait until this very process listens: others may share its port already."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        if await listens(port) and _has_listening_socket(pid, port):
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise NotMeasured(NOT_STARTED, port=port)


def _has_listening_socket(pid: int, port: int) -> bool:
    """Look for a socket of the process among those that listen on the port (proc(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {
        fields[9]
        for fields in map(str.split, lines)
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    links = (link for link in Path(f"/proc/{pid}/fd").iterdir())
    with contextlib.suppress(OSError):
        return any(str(link.readlink()).strip("socket:[]") in inodes for link in links)
    return False


def _forget_postgres(folder: Path) -> None:
    """Remove Postgres's files where root cannot keep them in the folder itself."""
    if elsewhere := read_notes(folder).postgres_folder:
        shutil.rmtree(elsewhere, ignore_errors=True)


def _take_no_notice(_: RoleRestarted) -> None:
    """Only the bench itself ends processes here."""
