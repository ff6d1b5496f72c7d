"""
A private Doorbuster whose every process can be killed and whose every connection can be cut.

    stores     one Valkey; one Postgres server for each shard (the ledger lives beside shard 1)
    roles      two api processes, two workers, two coordinators, the sandbox gateway
    links      one for each role and store: `site.link("worker-0", SHARD_0)`

Tests themselves read the stores past the links. Everything runs at the end of the test process's
leash and is gone with it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded.account import OURSELVES
from app.embedded.ports import LOCALHOST, free_port
from app.embedded.postgres import database_url, find_place, init_cluster, postgres_role
from app.embedded.probes import answers_ready, listens
from app.embedded.run_secrets import RunSecrets
from app.embedded.store_notes import StoreNotes
from app.embedded.supervisor import RoleSpec
from app.embedded.valkey import ADMIN, API, redis_url, valkey_role
from app.orders.sealing import OrderIds
from app.storage.migrate import migrate_all
from loadtest.client import Client, bearer, document
from loadtest.connection import Reply
from loadtest.history import SaleTerms
from loadtest.tokens import Signer
from tests.faults.lab.processes import Process
from tests.faults.lab.proxy import Link, Proxies
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

DEPLOYMENT: Final = "faults"
VALKEY: Final = "valkey"
SHARD_0: Final = "shard-0"
SHARD_1: Final = "shard-1"
LEDGER: Final = "ledger"
STORES: Final = (VALKEY, SHARD_0, SHARD_1, LEDGER)
SHARDS: Final = (SHARD_0, SHARD_1)
APIS: Final = ("api-0", "api-1")
WORKERS: Final = ("worker-0", "worker-1")
COORDINATORS: Final = ("coordinator-0", "coordinator-1")
ROLES: Final = (*COORDINATORS, *WORKERS, *APIS)
COMMANDS: Final = {"api": "serve", "worker": "worker", "coordinator": "coordinator"}

# 3 s instead of 30 for a server that has lost every key: the rule is the same, the suite shorter.
LOST_WAIT_MS: Final = 3_000
OPEN_SECONDS: Final = 60.0
# What asyncpg says when a server goes away at one moment or another.
SHARD_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
WRONG_CLOCK: Final = Path(__file__).with_name("wrong_clock.py")


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """What the lease row of one bucket says."""

    sale: int
    bucket: int
    shard: str
    epoch: int
    state: str
    granted: int
    reserved: int
    offset: tuple[int, int]
    orders_seen: int
    run_id: str | None
    recover_reason: str | None


class Site:
    """
    One running deployment.

    Attributes:
        processes: by name: stores and roles.
        keys: every secret.
        order_ids: reads the ids that the site gives out.
        signer: makes shoppers' tokens.
        recoveries: seconds from each loss to each bucket selling again, for the report.
        notes: what the present test has to tell, for the report.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = RunSecrets()
        self.order_ids = OrderIds(bytes.fromhex(self.keys.order_id_key))
        self.signer = Signer.from_keys([self.keys.auth_key])
        self.processes: dict[str, Process] = {}
        self.recoveries: list[float] = []
        self.notes: list[str] = []
        self._proxies = Proxies()
        self._links: dict[tuple[str, str], Link] = {}
        self._metrics_ports: dict[str, int] = {}
        self._notes = {store: StoreNotes() for store in (VALKEY, *SHARDS)}
        self._public_port, self._admin_port, self._sandbox_port = (free_port() for _ in range(3))
        self._numbers = itertools.count(1)
        self._outside: list[Path] = []

    async def start(self) -> None:
        """Start everything and wait until it serves."""
        self._logs.mkdir(parents=True)
        (self.folder / "cwd").mkdir()
        self._proxies.__enter__()
        await asyncio.gather(self._start_valkey(), *map(self._start_postgres, SHARDS))
        await migrate_all([self.url(shard) for shard in SHARDS], self.url(LEDGER), DEPLOYMENT)
        for role in ROLES:
            self._prepare_role(role)
        self.processes["sandbox"] = Process(self._sandbox_spec(), self._logs)
        await asyncio.gather(
            *(self.processes[name].start() for name in ("sandbox", *ROLES)),
        )

    def stop(self) -> None:
        """End everything, roles before stores, and remove what was made elsewhere."""
        for name in reversed(list(self.processes)):
            self.processes[name].stop()
        self._proxies.__exit__()
        for place in self._outside:
            shutil.rmtree(place)

    def note(self, told: str) -> None:
        """Have something told at the end of the session, and when the test fails."""
        self.notes.append(told)

    # Where things are ------------------------------------------------------------------------

    @property
    def public(self) -> str:
        return f"http://{LOCALHOST}:{self._public_port}"

    @property
    def sandbox(self) -> str:
        return f"http://{LOCALHOST}:{self._sandbox_port}"

    @property
    def valkey_folder(self) -> Path:
        return self.folder / "valkey"

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    def link(self, role: str, store: str) -> Link:
        """Give the one way by which a role reaches a store."""
        return self._links[role, store]

    def links(self, roles: Sequence[str], stores: Sequence[str] = STORES) -> list[Link]:
        return [self.link(role, store) for role in roles for store in stores]

    def url(self, store: str, port: int = 0, user: str = ADMIN) -> str:
        """Tell where a store is: itself, or behind a link's port."""
        if store == VALKEY:
            notes = self._notes[VALKEY]
            return redis_url(replace(notes, valkey_port=port or notes.valkey_port), user)
        notes = self._notes[SHARD_1 if store == LEDGER else store]
        database = "ledger" if store == LEDGER else store.replace("-", "_")
        return database_url(replace(notes, postgres_port=port or notes.postgres_port), database)

    # Asking past the links -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """Connect to Valkey as the one who may do everything."""
        client = Redis.from_url(self.url(VALKEY), socket_timeout=5, socket_connect_timeout=2)
        try:
            yield client
        finally:
            await client.aclose()

    async def query(self, store: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask one database one thing."""
        connection = await asyncpg.connect(self.url(store), timeout=5, command_timeout=5)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def leases(self, sales: Sequence[str]) -> list[LeaseRow]:
        """Read the lease rows of these sales; a shard that is away hides its own."""
        return [row for shard in SHARDS for row in await self._leases_of(shard, sales)]

    async def _leases_of(self, shard: str, sales: Sequence[str]) -> list[LeaseRow]:
        try:
            rows = await self.query(shard, SELECT_LEASES, list(sales))
        except SHARD_AWAY:
            return []
        return [
            LeaseRow(
                sale=row["sale"],
                bucket=row["bucket"],
                shard=shard,
                epoch=row["epoch"],
                state=row["state"],
                granted=row["granted"],
                reserved=row["reserved"],
                offset=(row["stream_ms"], row["stream_seq"]),
                orders_seen=row["orders_seen"],
                run_id=row["run_id"],
                recover_reason=row["recover_reason"],
            )
            for row in rows
        ]

    async def metric(self, role: str, name: str) -> float:
        """Sum a counter of one process over its labels."""
        async with Client(f"http://{LOCALHOST}:{self._metrics_ports[role]}") as client:
            text = (await client.call("GET", "/metrics")).body.decode()
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    async def operate(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask the admin listener as its operator; `path` without the prefix /admin/v1."""
        headers = (
            bearer(self.keys.admin_token)
            + f"Idempotency-Key: op-{next(self._numbers)}-{'0' * 16}\r\n"
        )
        async with Client(f"http://{LOCALHOST}:{self._admin_port}") as client:
            reply: Reply = await client.call(method, f"/admin/v1{path}", headers=headers, body=body)
        assert reply.status < 300, (path, reply.status, reply.body)
        return document(reply)

    # Sales -----------------------------------------------------------------------------------

    async def open_sale(self, terms: SaleTerms, **more: object) -> SaleTerms:
        """Make, publish and wait until every bucket sells."""
        body = {
            "id": terms.sale,
            "title": "A thing",
            "merchant": "faults",
            "stock": terms.stock,
            "price_minor": terms.price_minor,
            "currency": terms.currency,
            "limit_per_shopper": terms.limit_per_shopper,
            "pay_within_seconds": 600,
            **more,
        }
        await self.operate("POST", "/sales", body)
        await self.operate("POST", f"/sales/{terms.sale}/publish", {"reason": "fault suite"})
        await self.until_selling([terms.sale])
        return terms

    async def until_selling(self, sales: Sequence[str]) -> list[LeaseRow]:
        """Wait until every bucket of these sales is open and its lease runs."""

        async def is_selling() -> list[LeaseRow]:
            leases = await self.leases(sales)
            names = {row.sale for row in leases}
            sells = len(names) == len(sales) and all(
                [row.state == "open" and await self.runs(row) for row in leases]
            )
            return leases if sells else []

        return await eventually(is_selling, within_seconds=OPEN_SECONDS)

    async def runs(self, row: LeaseRow) -> bool:
        """Whether a bucket's lease lies ahead by Valkey's clock."""
        try:
            async with self.redis() as redis:
                seconds, _ = await redis.time()
                until = await redis.hget(self.key(row, "state"), "lease_until_ms")
        except (OSError, RedisError):
            return False
        return until is not None and int(until) > seconds * 1000

    def key(self, row: LeaseRow, name: str) -> str:
        """Spell a key of a bucket's present epoch."""
        return f"{DEPLOYMENT}:{{{row.sale}.{row.bucket}}}:e{row.epoch}:{name}"

    async def close_sales(self, sales: Sequence[str]) -> None:
        """End sales, and wait until every bucket has given back what it did not sell."""
        for sale in sales:
            await self.operate("POST", f"/sales/{sale}/close", {"reason": "over"})

        async def all_closed() -> bool:
            return all(row.state == "closed" for row in await self.leases(sales))

        await eventually(all_closed, within_seconds=OPEN_SECONDS)

    # Faults ----------------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault of every link, and let every process go on."""
        self._proxies.heal()
        for process in self.processes.values():
            if process.is_running:
                process.thaw()

    async def start_what_is_down(self) -> None:
        """Start every process that has been killed, stores first."""
        for names in ((VALKEY, *SHARDS), ("sandbox", *ROLES)):
            down = [self.processes[name] for name in names if not self.processes[name].is_running]
            await asyncio.gather(*(process.start() for process in down))

    async def restart(self, name: str, after_seconds: float = 0.2) -> None:
        """Kill a process, and start it again after a moment, as the supervisor does."""
        self.processes[name].kill()
        await self.start_later(name, after_seconds)

    async def start_later(self, name: str, seconds: float) -> None:
        await let_pass(seconds)
        await self.processes[name].start()

    async def take_locks(self, shard: str) -> int:
        """End every session that may hold locks on a shard; tell how many, 0 if it is away."""
        try:
            return len(await self.query(shard, END_LOCK_SESSIONS))
        except SHARD_AWAY:
            return 0

    def set_wrong_clock(self, role: str, hours: int) -> None:
        """Have a role's next start run on a clock that is wrong by so many hours."""
        process = self.processes[role]
        argv = (sys.executable, str(WRONG_CLOCK), str(hours * 3600), process.spec.argv[-1])
        process.spec = replace(process.spec, argv=argv)

    def set_right_clock(self, role: str) -> None:
        self.processes[role].spec = self._role_spec(role)

    # Starting --------------------------------------------------------------------------------

    async def _start_valkey(self) -> None:
        notes = replace(self._notes[VALKEY], valkey_port=free_port())
        self._notes[VALKEY] = notes
        self.processes[VALKEY] = Process(
            valkey_role(self.valkey_folder, notes, DEPLOYMENT), self._logs
        )
        await self.processes[VALKEY].start()

    async def _start_postgres(self, shard: str) -> None:
        home = self.folder / shard
        home.mkdir()
        home.chmod(0o711)
        place = find_place(home, "")
        if not place.folder.is_relative_to(home):
            self._outside.append(place.folder)
        notes = replace(self._notes[shard], postgres_port=free_port())
        self._notes[shard] = notes
        await init_cluster(place, notes.postgres_password, self._logs / f"{shard}-initdb.log")
        spec = replace(postgres_role(place, notes.postgres_port), name=shard)
        self.processes[shard] = Process(spec, self._logs)
        await self.processes[shard].start()

    def _prepare_role(self, role: str) -> None:
        for store in STORES:
            self._links[role, store] = self._proxies.link_to(self._port_of(store))
        self._metrics_ports[role] = free_port()
        self.processes[role] = Process(self._role_spec(role), self._logs)

    def _port_of(self, store: str) -> int:
        if store == VALKEY:
            return self._notes[VALKEY].valkey_port
        return self._notes[SHARD_1 if store == LEDGER else store].postgres_port

    def _role_spec(self, role: str) -> RoleSpec:
        kind, _, index = role.partition("-")
        metrics_port = self._metrics_ports[role]
        admin_port = self._admin_port

        async def ready() -> bool:
            if role == APIS[0] and not await answers_ready(admin_port):
                return False
            return await listens(metrics_port)

        extra = {
            "DOORBUSTER_PROCESS__METRICS_PORT": str(metrics_port),
            "DOORBUSTER_PROCESS__INDEX": index if kind == "api" else "0",
        }
        return RoleSpec(
            role=kind,
            name=role,
            argv=(sys.executable, "-m", "app", COMMANDS[kind]),
            env=self._environment({**self._store_urls(role), **extra}),
            ready=ready,
            account=OURSELVES,
        )

    def _sandbox_spec(self) -> RoleSpec:
        port = self._sandbox_port

        async def ready() -> bool:
            return await listens(port)

        return RoleSpec(
            role="sandbox",
            name="sandbox",
            argv=(sys.executable, "-m", "app", "sandbox"),
            env=self._environment({}),
            ready=ready,
        )

    def _store_urls(self, role: str) -> dict[str, str]:
        ports = {store: self._links[role, store].port for store in STORES}
        shards = [self.url(shard, ports[shard]) for shard in SHARDS]
        return {
            "DOORBUSTER_REDIS__URL": self.url(VALKEY, ports[VALKEY]),
            "DOORBUSTER_REDIS__API_URL": self.url(VALKEY, ports[VALKEY], API),
            "DOORBUSTER_POSTGRES__SHARD_URLS": json.dumps(shards),
            "DOORBUSTER_POSTGRES__LEDGER_URL": self.url(LEDGER, ports[LEDGER]),
        }

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        key = self.keys.auth_key
        auth = [{"kid": key.kid, "alg": key.alg, "key": key.key, "use": key.use}]
        operator = {"token": self.keys.admin_token, "scope": "operator", "name": "faults"}
        return {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "DOORBUSTER_EMBEDDED": "1",
            "DOORBUSTER_REDIS__DEPLOYMENT": DEPLOYMENT,
            "DOORBUSTER_AUTH__KEYS": json.dumps(auth),
            "DOORBUSTER_AUTH__OPERATORS": json.dumps([operator]),
            "DOORBUSTER_ORDERS__ID_KEY": self.keys.order_id_key,
            "DOORBUSTER_FULFILMENT__DELIVERY_KEYS": json.dumps([asdict(self.keys.delivery_key)]),
            "DOORBUSTER_WEB__HOST": LOCALHOST,
            "DOORBUSTER_WEB__PORT": str(self._public_port),
            "DOORBUSTER_WEB__ADMIN_PORT": str(self._admin_port),
            "DOORBUSTER_PAYMENTS__SANDBOX_URL": self.sandbox,
            "DOORBUSTER_PAYMENTS__SANDBOX_KEY": self.keys.sandbox_key,
            "DOORBUSTER_PAYMENTS__CALLBACK_URL": f"{self.public}/v1/callbacks",
            "DOORBUSTER_SANDBOX__PORT": str(self._sandbox_port),
            "DOORBUSTER_SANDBOX__JOURNAL_DIR": str(self.folder / "sandbox"),
            "DOORBUSTER_INVENTORY__COORDINATOR_RECOVERY_LOST_WAIT_MS": str(LOST_WAIT_MS),
            "DOORBUSTER_INVENTORY__COORDINATOR_CLOSE_AFTER_SECONDS": "0",
            **extra,
        }


SELECT_LEASES: Final = """
SELECT sale, bucket, epoch, state, granted, reserved, stream_ms, stream_seq, orders_seen, run_id,
       recover_reason
FROM bucket_leases WHERE sale_id = ANY($1) ORDER BY sale, bucket"""
# In two steps, or the planner may end a session before it has looked whose it is.
END_LOCK_SESSIONS: Final = """
WITH holders AS MATERIALIZED (
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'doorbuster lock' AND datname = current_database()
)
SELECT pid FROM holders WHERE pg_terminate_backend(pid)"""
