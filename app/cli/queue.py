"""`doorbuster queue`: how much waits to be flushed, and for how long."""

import asyncio
import sys
from typing import Any, Final

import click
import msgspec
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.exits import Exit
from app.cli.output import print_json, results
from app.cli.stores import Stores, run_with_stores, store_options
from app.inventory.queues import Queue, Queues, read_all_queues

LOOK_AGAIN_SECONDS: Final = 1.0
AGE_MS_AMBER: Final = 2_000  # of the war room: somebody should look
AGE_MS_RED: Final = 10_000

_NOT_BOTH: Final = "--json prints one document; it cannot be watched."


@click.command()
@click.option("--watch", is_flag=True, help="Look again each second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@store_options
def queue(*, watch: bool, as_json: bool, **where: Any) -> None:  # noqa: ANN401  store_options
    """
    Show the depth of each bucket's queue and the age of its oldest order.

    Exit code 5 when a store did not answer; what the others know is shown.
    """
    if watch and as_json:
        raise click.UsageError(_NOT_BOTH)

    async def ask(stores: Stores) -> Queues:
        return await (_watch(stores) if watch else _read(stores))

    queues = run_with_stores(ask, **where, with_map=False)
    if as_json:
        print_json(msgspec.to_builtins(queues))
    else:
        results().print(picture(queues))
    if queues.shards_away or not queues.redis_answers:
        sys.exit(Exit.UNREACHABLE)


async def _read(stores: Stores) -> Queues:
    return await read_all_queues(stores.shards, stores.redis, stores.deployment)


async def _watch(stores: Stores) -> Queues:
    """Redraw the table each second; only an interruption ends it."""
    with Live(console=results(), screen=False, auto_refresh=False) as live:
        while True:
            live.update(picture(await _read(stores)), refresh=True)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def picture(queues: Queues) -> Group:
    """Draw the table, and below it what no row can say."""
    table = Table("sale", "bucket", "shard", "epoch", "state")
    for name in ("orders", "oldest", "entries"):
        table.add_column(name, justify="right")
    table.add_column("offset")
    table.add_column("owner")
    for one in queues.queues:
        table.add_row(
            one.sale,
            str(one.bucket),
            str(one.shard),
            str(one.epoch),
            one.state if one.recover_reason is None else f"{one.state}: {one.recover_reason}",
            _count(one.orders),
            _age(one),
            _count(one.entries),
            one.offset,
            one.owner or Text("nobody", style="yellow"),
        )
    return Group(table, *_remarks(queues))


def _remarks(queues: Queues) -> list[Text]:
    totals = queues.totals
    said = [Text(f"{totals.orders} orders wait, the oldest for {_seconds(totals.oldest_age_ms)}")]
    said += [
        Text(f"{count} dead letters: {kind}", style="yellow")
        for kind, count in totals.dead_letters.items()
    ]
    said += [Text(f"shard {index} does not answer", style="red") for index in queues.shards_away]
    if not queues.redis_answers:
        said.append(Text("Redis does not answer, or cannot be read", style="red"))
    return said


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _age(one: Queue) -> Text:
    if one.oldest_age_ms is None:
        return Text("?")
    style = "red" if one.oldest_age_ms > AGE_MS_RED else "yellow"
    words = _seconds(one.oldest_age_ms) if one.oldest_age_ms else "0"
    return Text(words, style=style if one.oldest_age_ms > AGE_MS_AMBER else "")


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
