"""Make what acts on paid orders, for the api and for the worker."""

from functools import partial

from app.fulfilment.addresses import Addresses
from app.fulfilment.claims import Claims
from app.fulfilment.desk import Fulfilment
from app.fulfilment.parcels import Parcels
from app.fulfilment.seals import FieldSeals, read_seal_keys
from app.fulfilment.tally import UnreadableTally
from app.kernel.loop import Pace
from app.payments.stage import PaymentStage
from app.settings import Settings
from app.storage.shards import Shards
from app.telemetry.metrics import Metrics
from app.wiring.loops import Work

CONFIRM_PACE = Pace(idle_ms=1_000)  # days have passed: a second is soon enough
RESEAL_PACE = Pace(idle_ms=5_000)  # nothing to do but for a while after a key was replaced


def fulfilment_of(
    settings: Settings, shards: Shards, stage: PaymentStage, metrics: Metrics
) -> Fulfilment:
    """
    Make the acts of the stage.

    Raises:
        BadConfiguration: a key of personal fields is malformed.
    """
    seals = FieldSeals(read_seal_keys(settings.fulfilment.delivery_keys))
    return Fulfilment(
        shards=shards,
        addresses=Addresses(shards, seals),
        parcels=Parcels(shards),
        claims=Claims(shards),
        unreadable=UnreadableTally(metrics.registry),
        now=stage.now,
    )


def fulfilment_work(settings: Settings, acts: Fulfilment) -> list[Work]:
    """Return the loops of the stage, over all shards."""
    limits = settings.fulfilment
    return [
        (
            "automatic receipt",
            partial(acts.parcels.confirm_overdue_once, limits.confirm_orders_max),
            CONFIRM_PACE,
        ),
        ("resealing", partial(acts.addresses.reseal_once, limits.reseal_rows_max), RESEAL_PACE),
    ]
