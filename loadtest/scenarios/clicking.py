"""What shoppers of every scenario do: wait in the lobby, click until the answer is final, leave."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent  # type: ignore[import-untyped]  # ships no types
from locust import FastHttpUser
from locust.contrib.fasthttp import ResponseContextManager
from locust.exception import StopUser

from loadtest.answers import FINAL, NO_ANSWER, Answer, Outcome, must_repeat, read_answer
from loadtest.board import BOARD
from loadtest.history import Click
from loadtest.plan import Visit
from loadtest.shoppers import REPEAT_WAIT_MS, REPEATS_MAX


class LobbyShopper(FastHttpUser):
    """One shopper with one visit; gone when nothing is left to do."""

    abstract = True
    network_timeout = 10.0
    connection_timeout = 5.0

    def play_next_visit(self, play: Callable[[Visit, float], None]) -> None:
        """
        Wait in the lobby, play one visit, and leave.

        Args:
            play: is called at the instant of the click, with the visit and that instant,
                monotonic seconds.

        Raises:
            StopUser: always; Locust makes the next shopper itself.
        """
        visit = BOARD.take()
        if visit is None:
            raise StopUser
        try:
            play(visit, BOARD.wait_for(visit))
        finally:
            BOARD.leave()
        raise StopUser

    def click_until_final(
        self, visit: Visit, key: str, planned_at: float, wish: Mapping[str, Any]
    ) -> Answer:
        """Click with one key, and again while the answer leaves it open; `wish` is the body."""
        answer = self._click(visit, key, planned_at, wish)
        for _ in range(REPEATS_MAX):
            if not must_repeat(answer):
                break
            gevent.sleep((answer.retry_after_ms or REPEAT_WAIT_MS) / 1_000)
            answer = self._click(visit, key, time.monotonic(), wish)
        return answer

    def _click(self, visit: Visit, key: str, planned_at: float, wish: Mapping[str, Any]) -> Answer:
        BOARD.history.begun += 1
        sent_at = time.monotonic()
        with self.client.post(
            f"/v1/sales/{visit.sale}/orders",
            json=wish,
            headers=_headers(visit, key),
            catch_response=True,
            name="POST order",
        ) as response:
            answered_at = time.monotonic()
            answer = _read(response)
            _classify(response, answer)
        BOARD.history.clicks.append(
            Click(
                sale=visit.sale,
                shopper=visit.shopper,
                key=key,
                planned_at=planned_at,
                sent_at=sent_at,
                answered_at=answered_at,
                outcome=answer.outcome,
                order_id=answer.order_id,
                code=answer.code,
                waited=visit.waits,
                status=response.status_code,
            )
        )
        return answer


def authorization(shopper: str) -> dict[str, str]:
    """Give the header by which a shopper is known."""
    return {"Authorization": f"Bearer {BOARD.history.tokens[shopper]}"}


def body_of(response: ResponseContextManager) -> dict[str, Any]:
    """Read a JSON object; empty for anything else."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _headers(visit: Visit, key: str) -> dict[str, str]:
    headers = authorization(visit.shopper) | {"Idempotency-Key": key}
    return headers | {"Prefer": "wait=5"} if visit.waits else headers


def _read(response: ResponseContextManager) -> Answer:
    if response.status_code == 0:
        return NO_ANSWER
    headers = response.headers
    replayed = headers is not None and headers.get("Idempotency-Replayed") == "true"
    return read_answer(response.status_code, body_of(response), replayed=replayed)


def _classify(response: ResponseContextManager, answer: Answer) -> None:
    """Count it in Locust's own table by its class: a sold-out answer is no failure."""
    response.request_meta["name"] = answer.outcome.value
    if answer.outcome in FINAL or answer.outcome is Outcome.THROTTLED:
        response.success()  # type: ignore[no-untyped-call]
    else:
        response.failure(answer.code)  # type: ignore[no-untyped-call]
