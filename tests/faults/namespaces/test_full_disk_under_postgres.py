"""Row 17: a shard whose disk is full is a shard that is away; nothing of a batch is poison."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest

from app.embedded.account import Account
from app.embedded.ports import free_port
from app.embedded.postgres import (
    SHARD_DATABASES,
    database_url,
    find_place,
    init_cluster,
    postgres_role,
)
from app.embedded.store_notes import StoreNotes
from app.kernel.errors import ShardUnavailable
from app.storage.migrate import migrate_all
from app.storage.shards import DatabaseSettings, Shards
from tests.faults.lab.processes import Process
from tests.faults.namespaces.small_disk import SmallDisk
from tests.stores.orders.running_sale import running_sale
from tests.waiting import eventually

DISK_MEGABYTES = 96
SMALL_LOG = ("-c", "max_wal_size=48MB", "-c", "min_wal_size=32MB")
COUNT_LETTERS = "SELECT count(*) FROM dead_letters"

pytestmark = pytest.mark.faults


@dataclass
class Server:
    """A Postgres with two shards, and the small disk it can see."""

    process: Process
    disk: SmallDisk
    cluster: Path
    account: Account
    urls: tuple[str, ...]

    def own(self, folder: Path) -> Path:
        """Make a folder on the small disk that belongs to the server."""
        made = self.disk.seen / folder.relative_to(self.disk.folder)
        made.mkdir(mode=0o700)
        give(made, self.account)
        return made

    async def until_it_serves(self) -> None:
        """Start it again if it has given up."""
        if not self.process.is_running:
            await self.process.start()
        await eventually(self.process.spec.ready, within_seconds=30)


def give(path: Path, account: Account) -> None:
    if account.is_other:
        os.chown(path, account.uid, account.gid)


@pytest.fixture
async def server(small_disk, tmp_path) -> AsyncIterator[Server]:
    """Its own Postgres, stopped; the test says what goes to the small disk."""
    notes = StoreNotes(postgres_port=free_port())
    (tmp_path / "site").mkdir()
    place = find_place(tmp_path / "site", "")
    disk = small_disk(place.folder / "small", DISK_MEGABYTES)  # where its account may go
    await init_cluster(place, notes.postgres_password, tmp_path / "initdb.log")
    spec = postgres_role(place, notes.postgres_port)
    process = Process(disk.inside(replace(spec, argv=(*spec.argv, *SMALL_LOG))), tmp_path)
    urls = tuple(database_url(notes, name) for name in (*SHARD_DATABASES, "ledger"))
    try:
        yield Server(process, disk, place.cluster, place.account, urls)
    finally:
        process.stop()
        if not place.folder.is_relative_to(tmp_path):
            shutil.rmtree(place.folder)


@pytest.fixture
async def open_shop(server, stores, deployment):
    """Open a sale whose rows are on that server."""
    opened = []

    async def open_it():
        await migrate_all(server.urls[:2], server.urls[2], deployment)
        shards = Shards(server.urls[:2], DatabaseSettings(connect_timeout_ms=500))
        await shards.read_map()
        sale = running_sale(shards, stores.redis_url, stores.redis_api_url, deployment)
        shop = await sale.__aenter__()
        opened.append((sale, shards))
        await shop.open(stock=1_000)
        return shop

    yield open_it
    for sale, shards in opened:
        await sale.__aexit__(None, None, None)
        await shards.close()


async def buy(shop, number):
    """Place two hundred orders of one unit each."""
    await shop.renew()
    return [await shop.buy(f"shopper-{number}-{index}") for index in range(200)]


async def until_drained(shop, orders):
    """Wait until every order has its row; nothing became a letter and every promise holds."""

    async def drains() -> bool:
        try:
            await shop.flush()
            return await shop.value("SELECT count(*) FROM orders") == orders
        except ShardUnavailable:
            return False

    await eventually(drains, within_seconds=60)
    assert await shop.value(COUNT_LETTERS) == 0
    assert await shop.at_rest() == ""


async def test_a_full_log_disk_is_waited_out(server, open_shop):
    log = server.own(server.disk.folder / "log")
    for segment in (server.cluster / "pg_wal").iterdir():
        if segment.is_file():
            give(Path(shutil.copy(segment, log)), server.account)
    shutil.rmtree(server.cluster / "pg_wal")
    (server.cluster / "pg_wal").symlink_to(server.disk.folder / "log")
    for folder in ("archive_status", "summaries"):
        server.own(server.disk.folder / "log" / folder)
    await server.process.start()
    shop = await open_shop()
    await buy(shop, 1)
    await shop.flush()
    await buy(shop, 2)

    server.disk.fill()
    await use_up_the_log(server)
    with pytest.raises(ShardUnavailable):
        await shop.flush()

    server.disk.empty()
    await server.until_it_serves()
    await until_drained(shop, 400)


async def use_up_the_log(server):
    """Begin new pieces of the log until there is no room for one: the server stops."""
    with pytest.raises((asyncpg.PostgresError, OSError)):
        for _ in range(20):
            connection = await asyncpg.connect(server.urls[0], timeout=5)
            try:
                await connection.execute("CREATE TABLE IF NOT EXISTS filling (text text)")
                await connection.execute(
                    "INSERT INTO filling SELECT repeat('x', 1000) FROM generate_series(1, 9000)"
                )
                await connection.fetchval("SELECT pg_switch_wal()")
            finally:
                connection.terminate()


async def test_a_full_disk_under_the_rows_is_waited_out(server, open_shop):
    server.own(server.disk.folder / "rows")
    await server.process.start()
    shop = await open_shop()
    for shard in shop.shards.all:
        await put_orders_there(shard, server.disk.folder / "rows")
    await buy(shop, 1)
    await shop.flush()
    await buy(shop, 2)

    server.disk.fill()
    with pytest.raises(ShardUnavailable) as refusal:
        await eventually(shop.flush, within_seconds=5)
    assert refusal.value.fields["sqlstate"] == "53100"
    assert await shop.value(COUNT_LETTERS) == 0

    server.disk.empty()
    await until_drained(shop, 400)


async def put_orders_there(shard, folder):
    async with shard.connection() as connection:
        await connection.execute(
            f"CREATE TABLESPACE small_{shard.index} LOCATION '{folder}'"
        ) if shard.index == 0 else None
        await connection.execute("ALTER TABLE orders SET TABLESPACE small_0")
