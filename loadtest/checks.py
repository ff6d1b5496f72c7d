"""
What must hold after a run, as equations over what shoppers saw. Pure.

Two sources are compared: the history, which is what every shopper was told at the
time, and the orders, which is what GET tells each of them now.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from loadtest.answers import ACCEPTED, Outcome
from loadtest.history import History
from loadtest.plan import Ending

OrderDocument: TypeAlias = Mapping[str, Any]

EXAMPLES_MAX: Final = 5
MISSING: Final = "missing"  # 404: the service does not know what it had accepted
UNREAD: Final = "unread"  # it did not answer: nothing can be said
LIVE_STATES: Final = frozenset({"pending", "closing", "paid", "shipped", "completed"})
PAID_STATES: Final = frozenset({"paid", "shipped", "completed"})
CONFIRMED_STATES: Final = LIVE_STATES | {"closed", "refunded"}


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One equation with both sides.

    Attributes:
        name: what it protects, in words.
        left, right: the two sides, each as words and a number.
        holds: None when it could not be judged.
        examples: what contradicts it, at most EXAMPLES_MAX.
    """

    name: str
    left: str
    right: str
    holds: bool | None
    relation: str = "="
    examples: tuple[str, ...] = ()

    @property
    def equation(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


def equal(
    name: str,
    left: tuple[str, int],
    right: tuple[str, int],
    examples: Iterable[str] = (),
) -> Finding:
    """State that two counts are equal."""
    return Finding(name, side(*left), side(*right), left[1] == right[1], examples=_few(examples))


def at_most(
    name: str,
    left: tuple[str, int],
    right: tuple[str, int],
    examples: Iterable[str] = (),
) -> Finding:
    """State that the first count is not above the second."""
    holds = left[1] <= right[1]
    return Finding(name, side(*left), side(*right), holds, "<=", _few(examples))


def none_of(name: str, what: str, examples: Sequence[str]) -> Finding:
    """State that there is no such thing."""
    return equal(name, (what, len(examples)), ("", 0), examples)


def side(words: str, number: int) -> str:
    return f"{words} {number:,}".strip()


def _few(examples: Iterable[str]) -> tuple[str, ...]:
    return tuple(example for _, example in zip(range(EXAMPLES_MAX), examples, strict=False))


def check_history(history: History) -> list[Finding]:
    """Check what can be said from the answers alone."""
    counts = history.counts()
    accepted = sum(counts[outcome] for outcome in ACCEPTED)
    unknown = counts[Outcome.UNKNOWN]
    refused = counts.total() - accepted - unknown
    several = [f"{i.sale} {i.shopper}: {sorted(ids)}" for i, ids in _ids(history) if len(ids) > 1]
    names = Counter(order_id for _, ids in _ids(history) for order_id in ids)
    return [
        equal(
            "every click was answered",
            ("clicks", history.begun),
            (
                f"accepted {accepted:,} + refused {refused:,} + unknown {unknown:,} =",
                counts.total(),
            ),
        ),
        none_of(
            "every unknown was settled",
            "intents without a final answer",
            [f"{i.sale} {i.shopper} {i.key}" for i in sorted(history.unsettled())],
        ),
        none_of("same key, same order", "keys answered with several orders", several),
        none_of(
            "one order, one key",
            "orders answered to several keys",
            [order_id for order_id, times in names.items() if times > 1],
        ),
        none_of(
            "no answer was an error",
            "answers that a good client never sees",
            [f"{c.status} {c.code}" for c in history.clicks if c.outcome is Outcome.ERROR],
        ),
    ]


def _ids(history: History) -> Iterable[tuple[Any, set[str]]]:
    return history.ids_by_intent().items()


def check_orders(history: History, orders: Mapping[str, OrderDocument]) -> list[Finding]:
    """
    Check every accepted order as its shopper sees it now.

    Args:
        history: what was answered.
        orders: body of GET by order id; `{"status": MISSING}` or `{"status": UNREAD}`
            where there was none.
    """
    unread = [order_id for order_id, order in orders.items() if order["status"] == UNREAD]
    if unread:
        what = side("orders that could not be read", len(unread))
        return [Finding("every order can be read", what, "0", None, examples=_few(unread))]
    return [
        _check_tickets(orders),
        _check_rows(history, orders),
        *_check_stock(history, orders),
        _check_limit(history, orders),
        _check_captures(orders),
        _check_money_of_closed(orders),
        _check_late_payments(orders),
        _check_endings(history, orders),
    ]


def _check_tickets(orders: Mapping[str, OrderDocument]) -> Finding:
    states = Counter(order["status"] for order in orders.values())
    confirmed = sum(states[state] for state in CONFIRMED_STATES)
    rejected = states["rejected"]
    open_ends = [
        f"{order_id} {order['status']}"
        for order_id, order in orders.items()
        if order["status"] not in CONFIRMED_STATES | {"rejected"}
    ]
    return equal(
        "every ticket has one final answer",
        (f"accepted {len(orders):,} - rejected {rejected:,} =", len(orders) - rejected),
        ("confirmed", confirmed),
        open_ends,
    )


def _check_rows(history: History, orders: Mapping[str, OrderDocument]) -> Finding:
    """Compare each order with what was bought: sale, one unit, its price."""
    differ = []
    for order_id, click in history.accepted().items():
        order, terms = orders[order_id], history.sales[click.sale]
        told = (order.get("sale"), order.get("quantity"), order.get("total_minor"))
        if order["status"] in CONFIRMED_STATES and told != (click.sale, 1, terms.price_minor):
            differ.append(f"{order_id} {told}")
    return none_of("every order is what was bought", "orders that differ", differ)


def _check_stock(history: History, orders: Mapping[str, OrderDocument]) -> list[Finding]:
    held = Counter(
        {sale: units for (sale, _), units in _units(history, orders, by_shopper=False).items()}
    )
    return [
        at_most(
            f"never oversold: {terms.sale}",
            ("units held", held[terms.sale]),
            ("stock", terms.stock),
        )
        for terms in history.sales.values()
    ]


def _check_limit(history: History, orders: Mapping[str, OrderDocument]) -> Finding:
    above = [
        f"{shopper} holds {units} of {sale}"
        for (sale, shopper), units in _units(history, orders, by_shopper=True).items()
        if units > history.sales[sale].limit_per_shopper
    ]
    return none_of("the limit per shopper holds", "shoppers above it", above)


def _units(
    history: History,
    orders: Mapping[str, OrderDocument],
    *,
    by_shopper: bool,
) -> Counter[tuple[str, str]]:
    """Count the units in live orders."""
    units: Counter[tuple[str, str]] = Counter()
    for order_id, click in history.accepted().items():
        order = orders[order_id]
        if order["status"] in LIVE_STATES:
            units[click.sale, click.shopper if by_shopper else ""] += order["quantity"]
    return units


def _check_captures(orders: Mapping[str, OrderDocument]) -> Finding:
    paid = {i: order for i, order in orders.items() if order["status"] in PAID_STATES}
    wrong = [
        order_id
        for order_id, order in paid.items()
        if [p["amount_minor"] for p in payments(order, "paid")] != [order["total_minor"]]
    ]
    return equal(
        "every paid order has one capture of its total",
        ("paid orders", len(paid)),
        ("with one capture", len(paid) - len(wrong)),
        wrong,
    )


def _check_money_of_closed(orders: Mapping[str, OrderDocument]) -> Finding:
    closed = [order for order in orders.values() if order["status"] in {"closed", "refunded"}]
    captured = sum(
        p["amount_minor"] for order in closed for p in payments(order, "paid", "paid_late")
    )
    refunded = sum(r["amount_minor"] for order in closed for r in refunds(order))
    return equal(
        "closed orders keep no money",
        (f"captured of {len(closed):,} closed orders", captured),
        ("refunded", refunded),
    )


def _check_late_payments(orders: Mapping[str, OrderDocument]) -> Finding:
    late: defaultdict[str, int] = defaultdict(int)
    back: defaultdict[str, int] = defaultdict(int)
    for order_id, order in orders.items():
        for payment in payments(order, "paid_late"):
            late[order_id] += payment["amount_minor"]
        if order_id in late:
            back[order_id] = sum(refund["amount_minor"] for refund in refunds(order))
    return equal(
        "every late payment is refunded in full",
        (f"{len(late):,} late payments of", sum(late.values())),
        ("refunds of", sum(back.values())),
        [order_id for order_id, minor in late.items() if back[order_id] != minor],
    )


def _check_endings(history: History, orders: Mapping[str, OrderDocument]) -> Finding:
    """Check that each order ended as its shopper meant it to."""
    otherwise = [
        f"{order_id} meant {ending}, is {orders[order_id]['status']}"
        for order_id, ending in history.endings.items()
        if not _is_ended(orders[order_id], ending)
    ]
    return equal(
        "orders ended as their shoppers meant",
        ("orders", len(history.endings)),
        ("ended so", len(history.endings) - len(otherwise)),
        otherwise,
    )


def _is_ended(order: OrderDocument, ending: Ending) -> bool:
    status, reason = str(order["status"]), order.get("reason")
    match ending:
        case Ending.PAY | Ending.PAY_TOLD_TWICE:
            # Who came too late to open a payment lost the order and no money.
            return status in PAID_STATES or (status == "closed" and not order["payments"])
        case Ending.CANCEL:
            return (status, reason) == ("closed", "cancelled_by_shopper")
        case Ending.PAY_LATE | Ending.ABANDON:
            return (status, reason) == ("closed", "expired")


def payments(order: OrderDocument, *statuses: str) -> list[Mapping[str, Any]]:
    """Give an order's payments in these states."""
    return [payment for payment in order.get("payments", ()) if payment["status"] in statuses]


def refunds(order: OrderDocument) -> list[Mapping[str, Any]]:
    """Give an order's refunds that reached the shopper."""
    return [refund for refund in order.get("refunds", ()) if refund["status"] == "succeeded"]
