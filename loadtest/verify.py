"""
Ask a running service whether a run kept its promises.

Everything is asked from outside: orders as their shoppers, stock, queues, books
and audit as an operator. Journeys end by calling `verify`; so does the demo.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from app.kernel.equation import Doubt, Equation, Relation, equal, unjudged
from loadtest.checks import MISSING, UNREAD, OrderDocument, check_history, check_orders
from loadtest.client import Client, bearer, document
from loadtest.errors import LoadError, NoAnswer, Refused, Unreachable
from loadtest.history import History
from loadtest.merchant import Merchant

READ_TRIES: Final = 5
REST_SECONDS: Final = 20.0  # a ticket has its row within 10 s (P3); refunds and postings follow
_LOOK_SECONDS: Final = 0.25
_CONNECTIONS_MAX: Final = 32
_OK: Final = 200
_NOT_FOUND: Final = 404

Asking: TypeAlias = Callable[[Merchant, History], Awaitable[list[Equation]]]


@dataclass(frozen=True, slots=True)
class Examination:
    """
    What a service showed when it was asked.

    Attributes:
        equations: what shoppers saw first, then the service's own audit; `holds` is
            None for what could not be judged.
        orders: of the run, by id, as their shoppers see them.
    """

    equations: list[Equation]
    orders: dict[str, OrderDocument]


async def verify(
    public_url: str,
    admin_url: str,
    admin_token: str,
    history: History,
) -> list[Equation]:
    """
    Judge every promise that can be seen from outside; see `examine`.

    Returns:
        What shoppers saw first, then the service's own audit.
    """
    return (await examine(public_url, admin_url, admin_token, history)).equations


async def examine(
    public_url: str,
    admin_url: str,
    admin_token: str,
    history: History,
) -> Examination:
    """
    Read every order of a run, and judge every promise that can be seen from outside.

    What needs rest (empty queues, a full audit) is asked again until it holds, at
    most REST_SECONDS; call it when no shopper is under way.

    Args:
        public_url: of the shoppers' listener.
        admin_url: of the operators' listener.
        admin_token: of an operator.
        history: with a token for every shopper that has an order.
    """
    merchant = Merchant(admin_url, admin_token)
    try:
        rest = await _ask_until_it_holds(_check_rest, merchant, history)
        orders = await read_orders(public_url, history)
        equations = [
            *check_history(history),
            *check_orders(history, orders),
            *rest,
            *await _ask_until_it_holds(_check_books, merchant, history),
            *await _ask_until_it_holds(_read_audit, merchant, history),
        ]
    finally:
        merchant.close()
    return Examination(equations, orders)


async def read_orders(public_url: str, history: History) -> dict[str, OrderDocument]:
    """
    GET every accepted order as the shopper to whom it belongs.

    Returns:
        By order id; `{"status": MISSING}` for a 404, `{"status": UNREAD}` when
        nothing came.
    """
    accepted = history.accepted()
    async with Client(public_url, connections_max=_CONNECTIONS_MAX) as client:
        orders = await asyncio.gather(
            *(
                _read_order(client, order_id, history.tokens[click.shopper])
                for order_id, click in accepted.items()
            )
        )
    return dict(zip(accepted, orders, strict=True))


async def _read_order(client: Client, order_id: str, token: str) -> OrderDocument:
    request = client.compose("GET", f"/v1/orders/{order_id}", headers=bearer(token))
    for _ in range(READ_TRIES):
        try:
            reply = await client.send(request)
        except (NoAnswer, Unreachable):
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        if reply.status == _OK:
            return document(reply)
        if reply.status == _NOT_FOUND:
            return {"status": MISSING}
        await asyncio.sleep(_LOOK_SECONDS)
    return {"status": UNREAD}


async def _ask_until_it_holds(
    ask: Asking,
    merchant: Merchant,
    history: History,
) -> list[Equation]:
    """Ask, and again while something is broken, in motion or away; give the last answer."""
    deadline = time.monotonic() + REST_SECONDS
    while True:
        try:
            equations = await ask(merchant, history)
        except Refused as exc:
            return [_unjudged(exc)]
        except (NoAnswer, Unreachable) as exc:
            equations = [_unjudged(exc)]
        if all(equation.holds for equation in equations) or time.monotonic() > deadline:
            return equations
        await asyncio.sleep(_LOOK_SECONDS)


def _unjudged(exc: LoadError) -> Equation:
    """Turn a question that got no answer into an equation that could not be judged."""
    sides = ("the service", Relation.EQUAL, "can be asked")
    return unjudged("I21", "admin listener", sides, Doubt.UNREACHABLE, str(exc))


async def _check_rest(merchant: Merchant, history: History) -> list[Equation]:
    """Judge that nothing of these sales is on its way, and where each unit is."""
    backlog = await merchant.backlog(history.sales)
    return [
        equal("I17", "queues", ("orders without a row", backlog), ("0", 0)),
        *[_check_units(sale, await merchant.stock(sale)) for sale in history.sales],
    ]


def _check_units(sale: str, stock: Mapping[str, Any]) -> Equation:
    parts = {name: stock[name] for name in ("pool", "remaining", "reserved")}
    told = " + ".join(f"{name} {units}" for name, units in parts.items())
    return equal("I3", f"sale {sale}", ("stock", stock["stock_total"]), (told, sum(parts.values())))


async def _check_books(merchant: Merchant, _: History) -> list[Equation]:
    return [
        equal(
            "I14",
            f"ledger {balance['currency']}",
            ("debits", balance["debits_minor"]),
            ("credits", balance["credits_minor"]),
        )
        for balance in (await merchant.trial_balance())["items"]
    ]


async def _read_audit(merchant: Merchant, _: History) -> list[Equation]:
    """Read the service's own equations, those of its shards, Redis and ledger."""
    return msgspec.convert((await merchant.audit())["equations"], list[Equation])
