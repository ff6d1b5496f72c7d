"""From a rush that is over to its report: ask the service, measure, judge."""

import time
from typing import Final

from loadtest.answers import Outcome
from loadtest.figures import Figures, measure
from loadtest.report import Report, this_machine
from loadtest.rush import Rush, Site
from loadtest.verdict import OrderOutcome, Threshold, count_orders, grade_run
from loadtest.verify import examine

DRAIN_SECONDS_MAX: Final = 10.0  # P3: every ticket has its row within 10 s
TICKET_P99_MS_MAX: Final = 2_000.0  # of a rush that saturates the machine it shares
SOLD_SHARE_MIN: Final = 0.99  # of the stock, when enough shoppers came for it
_ENOUGH_SHOPPERS: Final = 2  # per unit
_CLICKS_MIN: Final = 50  # fewer measure nothing


async def assess(site: Site, rush: Rush, command: str) -> Report:
    """
    Judge a rush that is over.

    Args:
        site: the same as the rush's.
        rush: as `play_rush` gave it back.
        command: how to run it again.
    """
    examined = await examine(site.public_url, site.admin_url, site.admin_token, rush.history)
    orders = count_orders(rush.history, examined.orders)
    spread_seconds = rush.options.spread_seconds
    figures = measure(rush.history, rush.released_at, spread_seconds, rush.looks)
    thresholds = _thresholds(rush, orders, figures)
    doubts = _doubts(rush)
    counts = rush.history.counts()
    return Report(
        grade=grade_run(examined.equations, thresholds, doubts),
        run=rush.options.run,
        command=command,
        orders=orders,
        clicks={outcome.value: counts[outcome] for outcome in Outcome},
        troubles=dict(rush.history.troubles()),
        sold_again=rush.shop.sold_again,
        figures=figures,
        generator_cores=rush.generator_cores,
        wall_seconds=time.monotonic() - rush.began_at,
        thresholds=tuple(thresholds),
        doubts=tuple(doubts),
        equations=tuple(examined.equations),
        machine=this_machine(),
    )


def _thresholds(rush: Rush, orders: OrderOutcome, figures: Figures) -> list[Threshold]:
    errors = rush.history.counts()[Outcome.ERROR]
    gave_up = rush.shop.checkout.refusals["gave_up"]
    p99_ms = figures.sent_to_ticket.p99_ms
    thresholds = [
        Threshold("answers that a good client never sees", errors, 0, "clicks"),
        Threshold("orders given up by their shoppers", gave_up, 0, "orders"),
        Threshold("drain", figures.drain_seconds, DRAIN_SECONDS_MAX, "s"),
        Threshold("send -> 202, p99", p99_ms, TICKET_P99_MS_MAX, "ms"),
    ]
    if rush.options.shoppers >= _ENOUGH_SHOPPERS * orders.stock:
        sold = Threshold("sold", orders.sold, SOLD_SHARE_MIN * orders.stock, "units", is_floor=True)
        thresholds.append(sold)
    return thresholds


def _doubts(rush: Rush) -> list[str]:
    """Say why the run measured nothing, if so."""
    if len(rush.history.clicks) < _CLICKS_MIN:
        return [f"only {len(rush.history.clicks)} clicks"]
    return []
