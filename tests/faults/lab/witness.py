"""
The witness: does what shoppers were told fit the order in which Redis says it happened? Pure.

Orders of one bucket have places (epoch, seq). They are replayed in that order through a small
model of place_orders, and compared with the calls of the history:

- who was answered before another one had even asked stands before that one;
- no seq of an epoch is missing below the last that is known, none is there twice;
- at each place, what was sold until then less what had been given back fits the stock;
- no shopper ever holds more than the limit;
- who heard "sold out" asked when the stock had been sold at least once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.kernel.ids import OrderKey
from loadtest.answers import ACCEPTED, Outcome
from loadtest.history import Click, Intent, SaleTerms


@dataclass(frozen=True, slots=True)
class Placed:
    """
    One order that Redis has accepted, whatever became of it.

    Attributes:
        asked_at, told_at: monotonic; the first call with its key, the first that accepted it.
        placed_at: by Valkey's clock; None when no row tells.
        closed_at: by Postgres's clock; when its units were let go.
        is_lost: it has no row.
    """

    key: OrderKey
    sale: str
    shopper: str
    quantity: int
    asked_at: float
    told_at: float
    placed_at: datetime | None
    closed_at: datetime | None
    is_lost: bool


def testify(
    placed: Iterable[Placed],
    sales: Mapping[str, SaleTerms],
    granted: Mapping[tuple[int, int], int],
    *,
    may_lose: bool,
    parked: Iterable[OrderKey],
) -> list[str]:
    """
    Judge every bucket.

    Args:
        placed: every order known, of all buckets.
        sales: terms by id.
        granted: units, by (sale number, bucket).
        may_lose: the disk was cut: places are missing that nobody was ever told of.
        parked: places of orders that ended as dead letters.

    Returns:
        What does not fit, one sentence each.
    """
    by_bucket: defaultdict[tuple[int, int], list[Placed]] = defaultdict(list)
    for order in placed:
        by_bucket[order.key[:2]].append(order)
    wrong: list[str] = []
    known = frozenset(parked)
    for bucket, orders in by_bucket.items():
        orders.sort(key=lambda order: order.key)
        wrong += _against_time(orders)
        wrong += _doubles(orders) if may_lose else _doubles(orders) + _gaps(orders, known)
        wrong += _against_stock(orders, granted[bucket])
        wrong += _against_limit(orders, sales)
    return wrong


def _against_time(orders: Sequence[Placed]) -> list[str]:
    """Find orders that stand before one that was over before they were asked for."""
    wrong = []
    latest = None
    for order in orders:
        if latest is not None and latest.asked_at > order.told_at:
            wrong.append(
                f"{order.key} was told {latest.asked_at - order.told_at:.3f} s before "
                f"{latest.key}, which stands before it, was asked for"
            )
        if latest is None or order.asked_at > latest.asked_at:
            latest = order
    return wrong


def _doubles(orders: Sequence[Placed]) -> list[str]:
    """Find places that are taken twice."""
    places = Counter(order.key for order in orders)
    return [f"{key} stands {times} times" for key, times in places.items() if times > 1]


def _gaps(orders: Sequence[Placed], parked: frozenset[OrderKey]) -> list[str]:
    """Find places that nobody has below one that somebody has."""
    wrong = []
    for epoch in {order.key.epoch for order in orders}:
        seqs = {order.key.seq for order in orders if order.key.epoch == epoch}
        bucket = orders[0].key[:2]
        seqs |= {key.seq for key in parked if key[:3] == (*bucket, epoch)}
        missing = sorted(set(range(max(seqs))) - seqs)
        if missing:
            wrong.append(f"bucket {bucket} epoch {epoch}: nobody knows of seq {missing[:5]}")
    return wrong


def _against_stock(orders: Sequence[Placed], granted: int) -> list[str]:
    """
    Replay: units out, units back, never more out than there are.

    A return is counted from the instant its row says, which is before Redis hears of it, so the
    model never has fewer units than the bucket had. Orders lost with a disk are left out: their
    units were sold anew.
    """
    kept = [order for order in orders if not order.is_lost and order.placed_at is not None]
    returns = sorted(
        (order.closed_at, order.quantity) for order in kept if order.closed_at is not None
    )
    wrong = []
    out = 0
    next_return = 0
    for order in kept:
        assert order.placed_at is not None
        while next_return < len(returns) and returns[next_return][0] <= order.placed_at:
            out -= returns[next_return][1]
            next_return += 1
        out += order.quantity
        if out > granted:
            wrong.append(f"{order.key}: {out} units of {granted} were out")
    return wrong


def _against_limit(orders: Sequence[Placed], sales: Mapping[str, SaleTerms]) -> list[str]:
    held: Counter[tuple[str, str]] = Counter()
    for order in orders:
        if order.closed_at is None and not order.is_lost:
            held[order.sale, order.shopper] += order.quantity
    return [
        f"{shopper} holds {units} of {sale}"
        for (sale, shopper), units in held.items()
        if units > sales[sale].limit_per_shopper
    ]


def asked_and_told(clicks: Iterable[Click]) -> dict[str, tuple[float, float]]:
    """Give for each order when its key was first sent, and when it was first promised."""
    asked: dict[Intent, float] = {}
    told: dict[str, tuple[Intent, float]] = {}
    for click in clicks:
        intent = Intent(click.sale, click.shopper, click.key)
        asked[intent] = min(asked.get(intent, click.sent_at), click.sent_at)
        if click.outcome in ACCEPTED:
            _, moment = told.get(click.order_id, (intent, click.answered_at))
            told[click.order_id] = (intent, min(moment, click.answered_at))
    return {order_id: (asked[intent], moment) for order_id, (intent, moment) in told.items()}


def sold_out_too_early(
    clicks: Iterable[Click], placed: Sequence[Placed], sales: Mapping[str, SaleTerms]
) -> list[str]:
    """
    Find who heard "sold out" before the stock had been asked for.

    Only for sales of one bucket: another bucket's units are no use to a shopper.
    """
    wrong = []
    asked: defaultdict[str, list[float]] = defaultdict(list)
    for order in placed:
        asked[order.sale].append(order.asked_at)
    for times in asked.values():
        times.sort()
    for click in clicks:
        if click.outcome is Outcome.SOLD_OUT and click.sale in sales:
            stock, times = sales[click.sale].stock, asked[click.sale]
            if len(times) < stock or times[stock - 1] > click.answered_at:
                wrong.append(f"{click.shopper} heard that {click.sale} is sold out, and it was not")
    return wrong
