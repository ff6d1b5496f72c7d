"""
Which shopper does what: decided before the sale opens, from a seed.

The mix is fixed by tables rather than by chance, so that a rush of 600 shoppers
shows every kind of behaviour that one of 20 000 does.
"""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple


class Clicking(StrEnum):
    """How a shopper clicks."""

    ONCE = "once"
    TWICE_AT_ONCE = "twice_at_once"  # the nervous double click: one key, two requests
    AGAIN_LATER = "again_later"  # the reloaded page: the same key after the answer
    OTHER_KEY = "other_key"  # the greedy one: a second key after the first has won


class Ending(StrEnum):
    """What becomes of an order that was won."""

    PAY = "pay"
    PAY_TOLD_TWICE = "pay_told_twice"  # the provider sends its callback twice
    PAY_TOLD_LATE = "pay_told_late"  # the callback takes its time
    PAY_LATE = "pay_late"  # the money comes when the order is closed: full refund
    CANCEL = "cancel"
    ABANDON = "abandon"  # neither: the order closes by its deadline


CLICKINGS: Final = (
    *(Clicking.ONCE,) * 16,
    *(Clicking.TWICE_AT_ONCE,) * 2,
    Clicking.AGAIN_LATER,
    Clicking.OTHER_KEY,
)
ENDINGS: Final = (
    *(Ending.PAY,) * 10,
    *(Ending.PAY_TOLD_TWICE,) * 3,
    Ending.PAY_TOLD_LATE,
    Ending.PAY_LATE,
    *(Ending.CANCEL,) * 2,
    *(Ending.ABANDON,) * 3,
)
# Fewer who leave: one in three groups of three would be all that is ever full.
GROUP_ENDINGS: Final = (
    *(Ending.PAY,) * 13,
    *(Ending.PAY_TOLD_TWICE,) * 2,
    Ending.PAY_TOLD_LATE,
    *(Ending.CANCEL,) * 2,
    *(Ending.ABANDON,) * 2,
)
_STRIDE: Final = 7  # coprime to both lengths: any twenty in a row hold the whole mix, shuffled
_PATIENT_ONE_IN: Final = 12  # told "sold out, but some may return" they come back for them
_WAITS_ONE_IN: Final = 4  # clicks that ask for the row: they measure click -> row
_SECOND_SALE_ONE_IN: Final = 20
_LEADS_ONE_IN: Final = 5  # open a group of their own, whatever codes there are


class Visit(NamedTuple):
    """
    One shopper's intent at one sale.

    Attributes:
        key: its Idempotency-Key; names the run.
        after_seconds: when they mean to click, from the release.
        is_patient: comes back while units may return.
        waits: asks for the row with `Prefer: wait`.
    """

    sale: str
    shopper: str
    key: str
    after_seconds: float
    clicking: Clicking
    is_patient: bool
    waits: bool


def shopper_id(run: str, number: int) -> str:
    """Name the n-th shopper of a run."""
    return f"{run}-{number}"


def other_key(key: str) -> str:
    """Give the second key of a greedy shopper."""
    return f"{key[:24]}another1"


def plan_visits(
    sales: Sequence[str],
    shoppers: int,
    *,
    run: str,
    seed: int,
    spread_seconds: float,
) -> list[Visit]:
    """
    Plan a rush: every shopper at the first sale, one in twenty at the second as well.

    Args:
        sales: ids; one or two.
        shoppers: how many.
        run: makes shoppers and keys unique; of [0-9a-z].
        seed: the same seed plans the same rush.
        spread_seconds: how long the clicks are spread over, thickest at the start.

    Returns:
        1..2 x shoppers visits, by the time of their click.
    """
    draw = random.Random(seed)  # noqa: S311  a plan is no secret
    visits = [
        _plan_visit(sales[0], shopper_id(run, number), draw, number, spread_seconds)
        for number in range(shoppers)
    ]
    visits += [
        _plan_visit(sale, shopper_id(run, number), draw, number, spread_seconds)
        for sale in sales[1:]
        for number in range(0, shoppers, _SECOND_SALE_ONE_IN)
    ]
    return sorted(visits, key=lambda visit: visit.after_seconds)


def _plan_visit(
    sale: str,
    shopper: str,
    draw: random.Random,
    number: int,
    spread_seconds: float,
) -> Visit:
    return Visit(
        sale=sale,
        shopper=shopper,
        key=f"{draw.getrandbits(128):032x}",
        after_seconds=spread_seconds * draw.random() ** 2,
        clicking=CLICKINGS[number * _STRIDE % len(CLICKINGS)],
        is_patient=number % _PATIENT_ONE_IN == 0,
        waits=number % _WAITS_ONE_IN == 1,
    )


def ending_of(ordinal: int) -> Ending:
    """Give the fate of the n-th order that was won in the first rush, n from 0."""
    return ENDINGS[ordinal * _STRIDE % len(ENDINGS)]


def group_ending_of(ordinal: int) -> Ending:
    """Give the fate of the n-th order that took a seat in a group, n from 0."""
    return GROUP_ENDINGS[ordinal * _STRIDE % len(GROUP_ENDINGS)]


def opens_a_group(visit: Visit) -> bool:
    """Say whether a shopper rather leads than joins; decided by the key, so by the seed."""
    return int(visit.key, 16) % _LEADS_ONE_IN == 0


def key_of_try(key: str, number: int) -> str:
    """Give the key of the n-th group that a shopper tries, n from 0."""
    return key if number == 0 else f"{key[:24]}try{number:05d}"
