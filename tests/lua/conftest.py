"""One open bucket on the real Valkey, all scripts loaded, for every test of a script."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.storage.lua import load_scripts
from app.storage.redis import open_redis
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import INCARNATION, BucketOnValkey
from tests.real_stores import RealStores


@pytest.fixture
async def redis(stores: RealStores) -> AsyncIterator[Redis]:
    """The client as the service opens it, of the user who may do everything."""
    client = open_redis(stores.redis_url, client_name="test", connect_timeout_ms=5_000)
    yield client
    await client.aclose()


@pytest.fixture
async def connection(stores: RealStores) -> AsyncIterator[ScriptConnection]:
    """The hot path's own kind of connection, with the api's rights."""
    opened = ScriptConnection(
        stores.redis_api_url, client_name="test-hot", connect_timeout_ms=5_000
    )
    yield opened
    await opened.close()


@pytest.fixture
async def bucket(
    redis: Redis, connection: ScriptConnection, deployment: str
) -> AsyncIterator[BucketOnValkey]:
    """A bucket of 10 units, limit 2, open for an hour; its keys are gone after the test."""
    await load_scripts(redis, INCARNATION)
    opened = BucketOnValkey(redis, connection, deployment)
    await opened.open()
    yield opened
    await redis.delete(*opened.keys.all)
