"""
What must hold after a run, as equations over what shoppers saw. Pure.

Two sources are compared: the history, which is what every shopper was told at the
time, and the orders, which is what GET tells each of them now. The letters are
those of docs/GUARANTEES.md, as in the service's own audit.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from app.kernel.equation import (
    EXAMPLES_MAX,
    Doubt,
    Equation,
    Relation,
    at_most,
    equal,
    none_of,
    unjudged,
)
from loadtest.answers import ACCEPTED, Outcome
from loadtest.history import History
from loadtest.plan import Ending

OrderDocument: TypeAlias = Mapping[str, Any]

MISSING: Final = "missing"  # 404: the service does not know what it had accepted
UNREAD: Final = "unread"  # it did not answer: nothing can be said
PAID_STATES: Final = frozenset({"paid", "shipped", "completed"})
LIVE_STATES: Final = PAID_STATES | {"pending", "closing"}
CONFIRMED_STATES: Final = LIVE_STATES | {"closed", "refunded"}
_SHOPPERS: Final = "what shoppers saw"


def check_history(history: History) -> list[Equation]:
    """Judge what can be said from the answers alone."""
    counts = history.counts()
    accepted = sum(counts[outcome] for outcome in ACCEPTED)
    unknown = counts[Outcome.UNKNOWN]
    refused = counts.total() - accepted - unknown
    classes = f"accepted {accepted} + refused {refused} + unknown {unknown}"
    unsettled = [" ".join(intent) for intent in sorted(history.unsettled())]
    return [
        equal("I21", _SHOPPERS, ("clicks", history.begun), (classes, counts.total())),
        _none("I21", "clicks without a final answer, however often repeated", unsettled),
        *_check_keys(history),
    ]


def _check_keys(history: History) -> list[Equation]:
    ids = history.ids_by_intent()
    several = [f"{' '.join(intent)}: {sorted(own)}" for intent, own in ids.items() if len(own) > 1]
    keys = Counter(order_id for own in ids.values() for order_id in own)
    shared = [order_id for order_id, times in keys.items() if times > 1]
    return [
        _none("I7", "keys answered with several orders", several),
        _none("I7", "orders answered to several keys", shared),
    ]


def _none(invariant: str, what: str, examples: list[str], subject: str = _SHOPPERS) -> Equation:
    return none_of(invariant, subject, what, len(examples), examples)


def check_orders(history: History, orders: Mapping[str, OrderDocument]) -> list[Equation]:
    """
    Judge every accepted order as its shopper sees it now.

    Args:
        history: what was answered.
        orders: body of GET by order id; `{"status": MISSING}` or `{"status": UNREAD}`
            where there was none.
    """
    unread = [order_id for order_id, order in orders.items() if order["status"] == UNREAD]
    if unread:
        sides = ("accepted orders", Relation.EQUAL, "confirmed + rejected")
        note = f"{len(unread)} of {len(orders)} orders could not be read, {unread[0]} among them"
        return [unjudged("I5", _SHOPPERS, sides, Doubt.UNREACHABLE, note)]
    return [
        _check_tickets(orders),
        _check_rows(history, orders),
        *_check_stock(history, orders),
        _check_limit(history, orders),
        _check_captures(orders),
        _check_closed(orders),
        _check_late_payments(orders),
        _check_endings(history, orders),
        *_check_groups(history, orders),
    ]


def _check_tickets(orders: Mapping[str, OrderDocument]) -> Equation:
    states = Counter(order["status"] for order in orders.values())
    confirmed = sum(states[state] for state in CONFIRMED_STATES)
    open_ends = [
        f"{order_id} is {order['status']}"
        for order_id, order in orders.items()
        if order["status"] not in CONFIRMED_STATES | {"rejected"}
    ]
    return equal(
        "I5",
        _SHOPPERS,
        (
            f"accepted {len(orders)} - rejected {states['rejected']}",
            len(orders) - states["rejected"],
        ),
        ("confirmed", confirmed),
        counter_examples=open_ends,
    )


def _check_rows(history: History, orders: Mapping[str, OrderDocument]) -> Equation:
    """Compare each order with what was bought: its sale, one unit, its price."""
    differ = []
    for order_id, click in history.accepted().items():
        order, price = orders[order_id], history.sales[click.sale].price_minor
        told = (order.get("sale"), order.get("quantity"), order.get("total_minor"))
        if order["status"] in CONFIRMED_STATES and told != (click.sale, 1, price):
            differ.append(f"{order_id} is {told}")
    return _none("I6", "orders that are not what was bought", differ)


def _check_stock(history: History, orders: Mapping[str, OrderDocument]) -> list[Equation]:
    held: Counter[str] = Counter()
    for (sale, _), units in _units_held(history, orders).items():
        held[sale] += units
    return [
        at_most("I4", f"sale {sale}", ("units held", held[sale]), ("stock", terms.stock))
        for sale, terms in history.sales.items()
    ]


def _check_limit(history: History, orders: Mapping[str, OrderDocument]) -> Equation:
    above = [
        f"{shopper} holds {units} of {sale}"
        for (sale, shopper), units in _units_held(history, orders).items()
        if units > history.sales[sale].limit_per_shopper
    ]
    return _none("I9", "shoppers above the limit", above)


def _units_held(
    history: History,
    orders: Mapping[str, OrderDocument],
) -> Counter[tuple[str, str]]:
    """Count the units in live orders, by sale and shopper."""
    units: Counter[tuple[str, str]] = Counter()
    for order_id, click in history.accepted().items():
        order = orders[order_id]
        if order["status"] in LIVE_STATES:
            units[click.sale, click.shopper] += order["quantity"]
    return units


def _check_captures(orders: Mapping[str, OrderDocument]) -> Equation:
    paid = [(i, order) for i, order in orders.items() if order["status"] in PAID_STATES]
    wrong = [
        order_id
        for order_id, order in paid
        if [p["amount_minor"] for p in payments(order, "paid")] != [order["total_minor"]]
    ]
    return equal(
        "I12",
        _SHOPPERS,
        ("paid orders", len(paid)),
        ("with exactly one capture, of their total", len(paid) - len(wrong)),
        counter_examples=wrong,
    )


def _check_closed(orders: Mapping[str, OrderDocument]) -> Equation:
    closed = [order for order in orders.values() if order["status"] in {"closed", "refunded"}]
    captured = sum(_sum(payments(order, "paid", "paid_late")) for order in closed)
    return equal(
        "I12",
        _SHOPPERS,
        (f"captured by {len(closed)} closed orders", captured),
        ("refunded to them", sum(_sum(refunds(order)) for order in closed)),
    )


def _check_late_payments(orders: Mapping[str, OrderDocument]) -> Equation:
    late = [(i, order) for i, order in orders.items() if payments(order, "paid_late")]
    short = [i for i, order in late if _sum(payments(order, "paid_late")) != _sum(refunds(order))]
    return equal(
        "I13",
        _SHOPPERS,
        (f"{len(late)} late payments of", sum(_sum(payments(o, "paid_late")) for _, o in late)),
        ("refunds of", sum(_sum(refunds(order)) for _, order in late)),
        broken=len(short),
        counter_examples=short[:EXAMPLES_MAX],
    )


def _check_endings(history: History, orders: Mapping[str, OrderDocument]) -> Equation:
    """Judge whether each order ended as its shopper meant it to."""
    otherwise = [
        f"{order_id} was to {ending} and is {orders[order_id]['status']}"
        for order_id, ending in history.endings.items()
        if not _is_ended(orders[order_id], ending)
    ]
    return equal(
        "I11",
        _SHOPPERS,
        ("orders", len(history.endings)),
        ("ended as their shoppers meant", len(history.endings) - len(otherwise)),
        counter_examples=otherwise,
    )


def _is_ended(order: OrderDocument, ending: Ending) -> bool:
    status, reason = str(order["status"]), order.get("reason")
    if reason == "group_failed":
        # Whatever its shopper meant, the others did not; the money is judged by I12.
        return order.get("group") is not None and status in {"closed", "refunded"}
    match ending:
        case Ending.PAY | Ending.PAY_TOLD_TWICE | Ending.PAY_TOLD_LATE:
            # Who came too late lost the order and no money (I12, I13).
            return status in PAID_STATES or (status, reason) == ("closed", "expired")
        case Ending.CANCEL:
            # The deadline may come before the wish.
            return (status, reason) in {("closed", "cancelled_by_shopper"), ("closed", "expired")}
        case Ending.PAY_LATE | Ending.ABANDON:
            return (status, reason) == ("closed", "expired")


def _check_groups(history: History, orders: Mapping[str, OrderDocument]) -> list[Equation]:
    """Judge that groups are full and paid, or nobody in them is."""
    return [
        _check_whole(sale, terms.group.size, paid_by_group(history, orders, sale))
        for sale, terms in history.sales.items()
        if terms.group is not None
    ]


def _check_whole(sale: str, size: int, paid: Counter[str]) -> Equation:
    half = [f"{group} has {count} of {size}" for group, count in paid.items() if count != size]
    return equal(
        "I23",
        f"sale {sale}",
        ("groups with a paid order", len(paid)),
        ("of them full", len(paid) - len(half)),
        counter_examples=half,
    )


def paid_by_group(history: History, orders: Mapping[str, OrderDocument], sale: str) -> Counter[str]:
    """Count the paid orders of a group sale, by group."""
    own = [orders[i] for i, click in history.accepted().items() if click.sale == sale]
    return Counter(str(order["group"]) for order in own if order["status"] in PAID_STATES)


def is_settled(order: OrderDocument, group_state: str = "") -> bool:
    """
    Say whether nothing can happen to a shopper's order any more.

    It is kept, in a group that has formed if it is in one; or it is over, and what was
    captured for it has come back.
    """
    if order.get("status") in PAID_STATES:
        return order.get("group") is None or group_state == "formed"
    if order.get("status") not in {"closed", "refunded", "rejected"}:
        return False
    captured = bool(payments(order, "paid", "paid_late"))
    return captured == bool(refunds(order)) and len(refunds(order)) == len(order.get("refunds", ()))


def payments(order: OrderDocument, *statuses: str) -> list[Mapping[str, Any]]:
    """Give an order's payments in these states."""
    return [payment for payment in order.get("payments", ()) if payment["status"] in statuses]


def refunds(order: OrderDocument) -> list[Mapping[str, Any]]:
    """Give an order's refunds that reached the shopper."""
    return [refund for refund in order.get("refunds", ()) if refund["status"] == "succeeded"]


def _sum(parts: list[Mapping[str, Any]]) -> int:
    return sum(part["amount_minor"] for part in parts)
