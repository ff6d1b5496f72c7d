"""`doorbuster openapi`: the documents of both listeners, without a running service."""

from typing import Any, Final

import click

from app.cli.output import print_json
from app.fulfilment.settings import FulfilmentSettings
from app.kernel.clock import SystemClock
from app.orders.sealing import OrderIds
from app.payments.stage import PaymentStage, Providers
from app.payments.tally import PaymentTally
from app.settings import Settings
from app.storage.redis import open_redis
from app.storage.shards import Database, Shards
from app.telemetry.metrics import Metrics
from app.web.openapi import document
from app.wiring.api import ADMIN_TITLE, PUBLIC_TITLE, Api
from app.wiring.stores import VERSION, Stores

_NO_SECRET: Final = f'[{{"kid": "none", "key": "{"A" * 43}", "use": "seal"}}]'  # seals nothing
_NOWHERE: Final = "127.0.0.1:1"  # nobody is asked: a description needs no store


@click.command()
@click.option("--admin", "is_admin", is_flag=True, help="Of the admin listener.")
def openapi(*, is_admin: bool) -> None:
    """Print the OpenAPI document of the public listener, or of the admin one."""
    print_json(describe(is_admin=is_admin))


def describe(*, is_admin: bool) -> dict[str, Any]:
    """Write the document that GET /openapi.json of that listener answers."""
    api = _unconnected_api()
    if is_admin:
        return document(api.admin_endpoints(), title=ADMIN_TITLE, version=VERSION)
    return document(api.public_endpoints(), title=PUBLIC_TITLE, version=VERSION)


def _unconnected_api() -> Api:
    """Put an api together as `serve` does, on stores that nobody will ever ask."""
    settings = Settings(fulfilment=FulfilmentSettings(delivery_keys=_NO_SECRET))
    redis = open_redis(f"redis://{_NOWHERE}", client_name="doorbuster-openapi")
    stores = Stores(
        shards=Shards([f"postgresql://{_NOWHERE}/shard"], settings.postgres.database),
        ledger=Database(f"postgresql://{_NOWHERE}/ledger", settings.postgres.database),
        redis=redis,
        deployment=settings.redis.deployment,
    )
    metrics = Metrics(role="api", process="openapi", version=VERSION)
    stage = PaymentStage(
        shards=stores.shards,
        order_ids=OrderIds(bytes(16)),
        providers=Providers([]),
        clock=SystemClock(),
        settings=settings.payments.flow,
        tally=PaymentTally(metrics.registry),
    )
    return Api(settings, stores, stage, metrics, redis)
