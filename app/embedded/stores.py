"""
One Valkey and one Postgres with two shards and a ledger, kept alive while the block runs.

    async with EmbeddedStores(data_dir) as stores:
        connect(stores.redis_url, stores.shard_urls, stores.ledger_url)

Data stays in the data directory; the next start finds it, with the same passwords and, while they
are free, the same ports.
"""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from app.embedded.lock import DataDirLock
from app.embedded.ports import kept_port
from app.embedded.postgres import (
    LEDGER_DATABASE,
    SHARD_DATABASES,
    PostgresPlace,
    database_url,
    find_place,
    init_cluster,
    postgres_role,
)
from app.embedded.store_notes import StoreNotes, read_notes, write_notes
from app.embedded.supervisor import RoleRestarted, Supervisor
from app.embedded.valkey import ADMIN, API, redis_url, valkey_role

DEPLOYMENT: Final = "doorbuster"


def _tell_nobody(_: RoleRestarted) -> None:
    """Take no notice: tests and short commands do not follow restarts."""


class EmbeddedStores:
    """
    The stores of one data directory, while it is entered.

    Args:
        data_dir: made when absent.
        deployment: what the keys of the api's Redis user begin with; `*` stands for anything.
        with_valkey: False: there is one somewhere else.
        with_postgres: False: there is one somewhere else.
        lock: held by the caller; None: the stores take it themselves.
        on_restart: told of each store that died and serves again.
        discard: forget the Postgres files at the end, wherever they were put (tests).
    """

    def __init__(  # noqa: PLR0913  all but the first are named and optional
        self,
        data_dir: Path,
        deployment: str = DEPLOYMENT,
        *,
        with_valkey: bool = True,
        with_postgres: bool = True,
        lock: DataDirLock | None = None,
        on_restart: Callable[[RoleRestarted], None] = _tell_nobody,
        discard: bool = False,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._deployment = deployment
        self._with_valkey, self._with_postgres = with_valkey, with_postgres
        self._lock = lock
        self._on_restart = on_restart
        self._discard = discard
        self._notes = StoreNotes()
        self._postgres_folder: Path | None = None
        self._supervisor: Supervisor | None = None
        self._closing = AsyncExitStack()

    @property
    def redis_url(self) -> str:
        """For coordinator, worker and tests: may do everything."""
        return redis_url(self._notes, ADMIN)

    @property
    def redis_api_url(self) -> str:
        """For api processes: may sell, and cannot load a script."""
        return redis_url(self._notes, API)

    @property
    def shard_urls(self) -> tuple[str, ...]:
        """The shards in the order of the shard map."""
        return tuple(database_url(self._notes, name) for name in SHARD_DATABASES)

    @property
    def ledger_url(self) -> str:
        """The ledger database."""
        return database_url(self._notes, LEDGER_DATABASE)

    @property
    def pids(self) -> dict[str, int]:
        """Present process ids by role; they change when one dies and is restarted."""
        assert self._supervisor is not None
        watched = self._supervisor
        return {role: pid for role in ("valkey", "postgres") for pid in watched.pids(role)}

    async def __aenter__(self) -> Self:
        """
        Start both and wait until they serve.

        Raises:
            DataDirInUse: another process runs on the directory.
            RoleDidNotStart: one of them ended; the sentence has the end of its log.
            PostgresFolderLost: see there.
        """
        async with AsyncExitStack() as opened:
            if self._lock is None:
                lock = await opened.enter_async_context(DataDirLock(self._data_dir))
            else:
                lock = self._lock
            if self._discard:
                opened.callback(self._forget_postgres)
            self._supervisor = Supervisor(
                self._data_dir / "logs", self._on_restart, inherited=(lock.descriptor,)
            )
            await opened.enter_async_context(self._supervisor)
            await self._start(self._supervisor)
            self._closing = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def _start(self, supervisor: Supervisor) -> None:
        """Start Postgres before Valkey, so that Valkey ends first: nothing sells after that."""
        self._notes = read_notes(self._data_dir)
        if self._with_postgres:
            place = await self._prepare_postgres()
            self._note(postgres_port=kept_port(self._notes.postgres_port))
            await supervisor.start(postgres_role(place, self._notes.postgres_port))
        if self._with_valkey:
            self._note(valkey_port=kept_port(self._notes.valkey_port))
            folder = self._data_dir / "valkey"
            await supervisor.start(valkey_role(folder, self._notes, self._deployment))

    async def _prepare_postgres(self) -> PostgresPlace:
        # In a thread: as root this may copy the wheel's programs, tens of megabytes.
        place = await asyncio.to_thread(find_place, self._data_dir, self._notes.postgres_folder)
        is_inside = place.folder.is_relative_to(self._data_dir)
        self._postgres_folder = place.folder
        self._note(postgres_folder="" if is_inside else str(place.folder))
        log = self._data_dir / "logs" / "initdb.log"
        await init_cluster(place, self._notes.postgres_password, log)
        return place

    def _forget_postgres(self) -> None:
        if self._postgres_folder is not None:
            shutil.rmtree(self._postgres_folder)
            write_notes(self._data_dir, replace(self._notes, postgres_folder=""))

    def _note(self, **changes: str | int) -> None:
        self._notes = replace(self._notes, **changes)  # type: ignore[arg-type]
        write_notes(self._data_dir, self._notes)
