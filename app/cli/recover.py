"""`doorbuster recover`: an operator's order for a new epoch."""

import sys
from typing import Any, Final

import click

from app.cli.exits import Exit
from app.cli.output import tell
from app.cli.stores import Stores, run_with_stores, store_options
from app.inventory.lease_store import ask_to_recover
from app.inventory.recovery import OPERATOR_NOW
from app.sales.store import find_sale

OPERATOR: Final = "operator"


@click.command()
@click.option("--sale", required=True, metavar="S")
@click.option("--bucket", type=click.IntRange(0, 63), metavar="B", help="Only this one.")
@click.option("--now", is_flag=True, help="Do not wait for a server that has lost its keys.")
@store_options
def recover(*, sale: str, bucket: int | None, now: bool, **where: Any) -> None:  # noqa: ANN401  store_options
    """
    Have the coordinator take a new epoch for a sale's buckets.

    Stock is counted anew from Postgres and what is left of the stream; the sale
    is closed to shoppers until it is done, then opens by itself.
    """
    reason = OPERATOR_NOW if now else OPERATOR

    async def ask(stores: Stores) -> int | None:
        found = await find_sale(stores.shards, sale)
        if found is None:
            return None
        return sum(
            [
                await ask_to_recover(shard, found.number, bucket, reason)
                for shard in stores.shards.all
            ]
        )

    buckets = run_with_stores(ask, **where)
    if not buckets:
        tell(f"{sale}: no such sale, or no bucket of it that is open or draining")
        sys.exit(Exit.FAILED)
    click.echo(f"{buckets} {'bucket' if buckets == 1 else 'buckets'} will take a new epoch")
