"""
The group-buy: leaders open groups and share their codes, the others join them and pay.

The oldest code draws the crowd, so that many want its last seat at once; who is told
that it is gone tries the next code, with a key of its own. Of those who have a
seat most pay at the gateway, some cancel, some walk away. Everybody stays until their
order is settled: paid in a group that formed, or with all the money back.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import gevent  # type: ignore[import-untyped]  # ships no types
from locust import task

from loadtest.answers import ACCEPTED, Answer, Outcome
from loadtest.board import BOARD
from loadtest.checkout import LATE_CALLBACK_MS, is_again
from loadtest.checks import PAID_STATES, is_settled
from loadtest.errors import GaveUp
from loadtest.plan import Ending, Visit, group_ending_of, key_of_try, opens_a_group
from loadtest.scenarios.clicking import LobbyShopper, authorization, body_of

TRIES_MAX: Final = 6  # of somebody who finds groups full; the last one opens a group
CODE_WAIT_SECONDS: Final = 1.0  # then a shopper who would rather join opens a group too
GIVE_UP_SECONDS: Final = 60.0  # after the last possible end of the group
_LOOK_SECONDS: Final = 0.5
_HEAR_SECONDS: Final = 0.02
_CALLBACKS: Final[Mapping[Ending, Mapping[str, Any]]] = {
    Ending.PAY: {"callback": "now"},
    Ending.PAY_TOLD_TWICE: {"callback": "twice"},
    Ending.PAY_TOLD_LATE: {"callback": "late", "delay_ms": LATE_CALLBACK_MS},
}


class GroupShopper(LobbyShopper):
    """Takes a seat, ends the order as meant, and looks until it is settled."""

    @task
    def visit(self) -> None:
        """Be one shopper."""
        self.play_next_visit(self._play)

    def _play(self, visit: Visit, planned_at: float) -> None:
        answer = self._find_seat(visit, planned_at)
        if answer.outcome in ACCEPTED:
            try:
                _Seat(self, visit, answer.order_id).see_through(group_ending_of(BOARD.next_seat()))
            except GaveUp:
                BOARD.gave_up += 1

    def _find_seat(self, visit: Visit, planned_at: float) -> Answer:
        if not opens_a_group(visit) and _waited_for_a_code():
            planned_at = time.monotonic()
        for number in range(TRIES_MAX):
            leads = number == TRIES_MAX - 1 or (number == 0 and opens_a_group(visit))
            code = None if leads else BOARD.codes.pick()
            wish = {"quantity": 1, "group": code or "new"}
            key = key_of_try(visit.key, number)
            answer = self.click_until_final(visit, key, planned_at, wish)
            if answer.outcome is not Outcome.NO_SEAT or code is None:
                break
            BOARD.codes.strike(code)
            planned_at = time.monotonic()
        if answer.outcome in ACCEPTED and code is None:
            BOARD.codes.share(answer.group)
        return answer


def _waited_for_a_code() -> bool:
    """Wait until somebody has shared a code, a while; tell whether that took time."""
    patient_until = time.monotonic() + CODE_WAIT_SECONDS
    waited = False
    while BOARD.codes.pick() is None and time.monotonic() < patient_until:
        gevent.sleep(_HEAR_SECONDS)
        waited = True
    return waited


class _Seat:
    """One shopper's order in a group, as the shopper can act on it."""

    def __init__(self, shopper: GroupShopper, visit: Visit, order_id: str) -> None:
        terms = BOARD.history.sales[visit.sale].group
        assert terms is not None, visit
        self._client = shopper.client
        self._order_id = order_id
        self._path = f"/v1/orders/{order_id}"
        self._own = authorization(visit.shopper)
        self._give_up_at = time.monotonic() + terms.window_seconds + GIVE_UP_SECONDS

    def see_through(self, ending: Ending) -> None:
        """
        Do what was meant, and look until the order is settled.

        Raises:
            GaveUp: it was not in time.
        """
        BOARD.history.endings[self._order_id] = ending
        if ending is Ending.CANCEL:
            self._ask("cancel", "POST", f"{self._path}/cancel", self._own)
        elif ending in _CALLBACKS:
            self._pay(_CALLBACKS[ending])
        while not self._is_settled():
            self._wait()

    def _pay(self, how: Mapping[str, Any]) -> None:
        keyed = self._own | {"Idempotency-Key": f"pay-{self._order_id}"}
        wish = {"provider": "sandbox", "product": "native"}
        opened = self._ask("open payment", "POST", f"{self._path}/payments", keyed, wish)
        if payment_id := opened.get("payment_id"):
            url = f"{BOARD.gateway_url}/control/payments/{payment_id}"
            self._ask("pay at the gateway", "POST", url, {}, {"outcome": "pay", **how})

    def _is_settled(self) -> bool:
        order = self._ask("GET order", "GET", self._path, self._own)
        if order.get("status") not in PAID_STATES:
            return is_settled(order)
        group = self._ask("GET group", "GET", f"/v1/groups/{order['group']}", {})
        return is_settled(order, group.get("state", ""))

    def _ask(
        self, name: str, method: str, url: str, headers: dict[str, str], body: object = None
    ) -> dict[str, Any]:
        """Ask until the answer is not "come again"; give its body, a refusal's too."""
        while True:
            with self._client.request(
                method, url, json=body, headers=headers, catch_response=True, name=name
            ) as response:
                told = body_of(response)
                again = is_again(response.status_code, str(told.get("code", "")))
                response.success()
            if not again:
                return told
            self._wait()

    def _wait(self) -> None:
        if time.monotonic() > self._give_up_at:
            raise GaveUp(self._order_id)
        gevent.sleep(_LOOK_SECONDS)
