"""The table of refusals against the contract."""

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from app.kernel import errors
from app.web.catalogue import PROBLEMS
from app.web.problem import problem

CONTRACT = """
400 bad_request idempotency_key_missing idempotency_key_invalid
401 unauthorized
403 not_open sale_ended sale_paused not_admitted forbidden csrf_failed
404 not_found sale_not_found order_not_found group_not_found payment_not_found
404 after_sale_not_found
405 method_not_allowed
408 request_timeout
413 body_too_large
415 unsupported_media_type
431 header_too_large
409 sold_out limit_reached order_not_confirmed order_not_payable order_not_cancellable
409 order_not_shippable order_not_confirmable delivery_locked refund_exceeds_paid not_refundable
409 group_full group_expired already_in_group payment_in_progress sale_state_conflict
409 approval_required order_not_reviewable after_sale_conflict
403 payment_refused
409 payment_held payment_not_held payment_not_open balance_insufficient
409 amount_mismatch proof_reused refund_settled refund_under_way bank_line_settled
422 validation_failed idempotency_mismatch
429 too_many_requests
500 internal_error
503 recovering overloaded backlog_full outcome_unknown shard_unavailable seal_key_missing
"""
WAITS = {"overloaded": (1, 5), "backlog_full": (1, 5), "recovering": (1, 3)}


def test_every_code_of_the_contract_has_its_status_and_there_is_no_other():
    expected = {}
    for line in CONTRACT.strip().splitlines():
        status, *codes = line.split()
        expected |= dict.fromkeys(codes, int(status))
    assert {code: kind.status for code, kind in PROBLEMS.items()} == expected


def test_every_code_speaks_both_languages():
    for kind in PROBLEMS.values():
        for words in (kind.title, kind.detail):
            assert words.english.isascii()
            assert any("\u4e00" <= character <= "\u9fff" for character in words.chinese)


def test_every_error_of_the_kernel_has_a_code_of_the_catalogue():
    raised = [one for one in vars(errors).values() if isinstance(one, type)]
    for error in raised:
        if issubclass(error, errors.DoorbusterError):
            assert error.code in PROBLEMS


@pytest.mark.parametrize("code", WAITS)
def test_the_wait_is_drawn_within_its_range_and_told_twice(code):
    low, high = WAITS[code]
    seen = set()
    for _ in range(50):
        reply = problem(code, make_mocked_request("POST", "/"))
        document = msgspec.json.decode(reply.body)
        exact = document["retry_after_ms"]
        assert low * 1000 <= exact <= high * 1000
        assert int(reply.headers["Retry-After"]) == -(-exact // 1000)
        assert document["retryable"] is True
        seen.add(exact)
    assert len(seen) > 1


def test_the_fields_of_the_case_stand_beside_the_members():
    reply = problem("sold_out", make_mocked_request("POST", "/x"), may_return=True, retryable=True)
    document = msgspec.json.decode(reply.body)
    assert (reply.status, document["may_return"], document["retryable"]) == (409, True, True)
    assert "Retry-After" not in reply.headers


def test_an_exact_wait_is_rounded_up_in_the_header():
    reply = problem("not_open", make_mocked_request("POST", "/"), retry_after_ms=1_001)
    assert reply.headers["Retry-After"] == "2"
    assert msgspec.json.decode(reply.body)["retry_after_ms"] == 1_001
