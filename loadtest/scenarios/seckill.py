"""
The seckill: everybody waits in the lobby and clicks when the sale opens.

A closed-loop tool makes a poor witness of a rush: a user who waits for an answer
sends nothing meanwhile. So each visit has its planned instant, and what is noted
is when the click was meant, when it left and when it was answered.
"""

import time
from typing import Any

import gevent  # type: ignore[import-untyped]  # ships no types
from locust import FastHttpUser, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.exception import StopUser

from loadtest.answers import (
    FINAL,
    NO_ANSWER,
    Answer,
    Outcome,
    accepted_id,
    must_repeat,
    read_answer,
)
from loadtest.board import BOARD
from loadtest.history import Click
from loadtest.plan import Clicking, Visit, other_key
from loadtest.shoppers import REPEAT_WAIT_MS, REPEATS_MAX


class SeckillShopper(FastHttpUser):
    """One shopper with one visit; gone when the answer is final."""

    network_timeout = 10.0
    connection_timeout = 5.0

    @task
    def visit(self) -> None:
        """Wait in the lobby, click as planned, and leave."""
        visit = BOARD.take()
        if visit is None:
            raise StopUser
        try:
            self._play(visit, BOARD.wait_for(visit))
        finally:
            BOARD.leave()
        raise StopUser

    def _play(self, visit: Visit, planned_at: float) -> None:
        clicks = 2 if visit.clicking is Clicking.TWICE_AT_ONCE else 1
        spawned = [
            gevent.spawn(self._click_until_final, visit, visit.key, planned_at)
            for _ in range(clicks)
        ]
        answers = [greenlet.get() for greenlet in spawned]
        if not accepted_id(answers):
            return
        if visit.clicking is Clicking.AGAIN_LATER:
            self._click_until_final(visit, visit.key, time.monotonic())
        if visit.clicking is Clicking.OTHER_KEY:
            self._click_until_final(visit, other_key(visit.key), time.monotonic())

    def _click_until_final(self, visit: Visit, key: str, planned_at: float) -> Answer:
        answer = self._click(visit, key, planned_at)
        for _ in range(REPEATS_MAX):
            if not must_repeat(answer):
                break
            gevent.sleep((answer.retry_after_ms or REPEAT_WAIT_MS) / 1_000)
            answer = self._click(visit, key, time.monotonic())
        return answer

    def _click(self, visit: Visit, key: str, planned_at: float) -> Answer:
        BOARD.history.begun += 1
        sent_at = time.monotonic()
        with self.client.post(
            f"/v1/sales/{visit.sale}/orders",
            json={"quantity": 1},
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


def _headers(visit: Visit, key: str) -> dict[str, str]:
    token = BOARD.history.tokens[visit.shopper]
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    return headers | {"Prefer": "wait=5"} if visit.waits else headers


def _read(response: ResponseContextManager) -> Answer:
    if response.status_code == 0:
        return NO_ANSWER
    headers = response.headers
    replayed = headers is not None and headers.get("Idempotency-Replayed") == "true"
    return read_answer(response.status_code, _body(response), replayed=replayed)


def _body(response: ResponseContextManager) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _classify(response: ResponseContextManager, answer: Answer) -> None:
    """Count it in Locust's own table by its class: a sold-out answer is no failure."""
    response.request_meta["name"] = answer.outcome.value
    if answer.outcome in FINAL or answer.outcome is Outcome.THROTTLED:
        response.success()  # type: ignore[no-untyped-call]
    else:
        response.failure(answer.code)  # type: ignore[no-untyped-call]
