"""
The Redis server that holds the buckets, as the coordinator sees it.

Who it is, how long it has been so, and what its clock says.
"""

import time
from typing import Any, Final

from redis.asyncio import Redis

from app.inventory.lease import ServerIdentity
from app.kernel.errors import BadConfiguration, RedisUnavailable
from app.storage.keys import trial_key
from app.storage.redis import redis_errors

STEADY_SECONDS: Final = 2.0  # it must have been the same server this long (docs/HOT_PATH.md §7)
VERSION_MIN: Final = (7, 2)


class BucketServer:
    """One Redis server, asked anew each second."""

    def __init__(
        self, redis: Redis, deployment: str, *, steady_seconds: float = STEADY_SECONDS
    ) -> None:
        self.redis = redis
        self._deployment = deployment
        self._steady_seconds = steady_seconds
        self._identity: ServerIdentity | None = None
        self._since = 0.0

    async def identify(self) -> ServerIdentity:
        """
        Ask the server who it is.

        Raises:
            RedisUnavailable: no answer.
        """
        with redis_errors(writes=False):
            server: Any = await self.redis.info("server")
            replication: Any = await self.redis.info("replication")
        identity = ServerIdentity(server["run_id"], replication["master_replid"])
        if replication["role"] != "master":
            raise RedisUnavailable(why="the server is a replica")
        if identity != self._identity:
            self._identity = identity
            self._since = time.monotonic()
        return identity

    @property
    def is_steady(self) -> bool:
        """Whether it has kept its identity for long enough to be trusted with an epoch."""
        same_for = time.monotonic() - self._since
        return self._identity is not None and same_for >= self._steady_seconds

    async def now_ms(self) -> int:
        """Ask for the server's clock, Unix milliseconds."""
        with redis_errors(writes=False):
            seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def try_to_write(self) -> None:
        """
        Write something small, durably.

        Raises:
            RedisRefused: it does not take writes (disk, memory, replicas).
        """
        with redis_errors():
            await self.redis.set(trial_key(self._deployment), 1, px=60_000)

    async def check_configuration(self) -> None:
        """
        Refuse a server that would lose or evict what it acknowledged.

        Raises:
            BadConfiguration: what is wrong, one sentence each.
            RedisUnavailable: no answer.
        """
        with redis_errors(writes=False):
            told: Any = await self.redis.config_get(
                "append*", "maxmemory-policy", "min-replicas-to-write"
            )
            server: Any = await self.redis.info("server")
            replication: Any = await self.redis.info("replication")
        faults = faults_of(told, version_of(server), replication["connected_slaves"])
        if faults:
            raise BadConfiguration(redis="; ".join(faults))


def version_of(server: dict[str, Any]) -> tuple[int, ...]:
    """Read the version from INFO: Valkey's own, or that of Redis."""
    text = str(server.get("valkey_version") or server["redis_version"])
    return tuple(int(part) for part in text.split(".")[:2])


def faults_of(
    configuration: dict[str, str], version: tuple[int, ...], replicas: int = 0
) -> list[str]:
    """
    Return what keeps a server from holding stock (docs/HOT_PATH.md §5).

    A server that has replicas must refuse writes when none follows (fence F5): cut
    off from them it may be a primary that nobody follows any more.
    """
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    faults = [
        f"{name} is {configuration.get(name)}, must be {value}"
        for name, value in wanted.items()
        if configuration.get(name) != value
    ]
    if version < VERSION_MIN:
        faults.append(f"version {'.'.join(map(str, version))} is older than 7.2")
    if replicas and int(configuration.get("min-replicas-to-write", "0")) < 1:
        faults.append(f"min-replicas-to-write is 0, must be at least 1 with {replicas} replicas")
    return faults
