"""Outcome classes, as a table: an answer means what its body says."""

import pytest

from loadtest.answers import Answer, Outcome, must_repeat, read_answer

ORDER = "0123456789ABCDEFGHJKMNPQRS"

TABLE = """
# status code                  order  replayed outcome     repeat
  202    -                     yes    no          WON        no
  201    -                     yes    no          WON        no
  202    -                     yes    yes         DUPLICATE  no
  201    -                     yes    yes         DUPLICATE  no
  202    -                     no     no          ERROR      no
  200    -                     yes    no          ERROR      no
  409    sold_out              no     no          SOLD_OUT   no
  409    limit_reached         no     no          LIMIT      no
  409    already_in_group      no     no          LIMIT      no
  409    group_full            no     no          NO_SEAT    no
  409    group_expired         no     no          NO_SEAT    no
  404    group_not_found       no     no          NO_SEAT    no
  403    not_open              no     no          THROTTLED  yes
  403    sale_paused           no     no          THROTTLED  yes
  403    sale_ended            no     no          ERROR      no
  429    too_many_requests     no     no          THROTTLED  yes
  503    recovering            no     no          THROTTLED  yes
  503    overloaded            no     no          THROTTLED  yes
  503    backlog_full          no     no          THROTTLED  yes
  503    shard_unavailable     no     no          THROTTLED  yes
  503    outcome_unknown       no     no          UNKNOWN    yes
  500    internal_error        no     no          ERROR      yes
  502    -                     no     no          ERROR      no
  401    unauthorized          no     no          ERROR      no
  422    idempotency_mismatch  no     no          ERROR      no
"""
ROWS = [line.split() for line in TABLE.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_an_answer_belongs_to_one_class(row):
    status, code, order, replayed, outcome, repeat = row
    body = ({} if code == "-" else {"code": code}) | ({"order_id": ORDER} if order == "yes" else {})
    answer = read_answer(int(status), body, replayed=replayed == "yes")
    assert answer.outcome is Outcome[outcome]
    assert must_repeat(answer) is (repeat == "yes")


def test_what_a_refusal_adds_is_kept():
    body = {"code": "sold_out", "may_return": True, "retry_after_ms": 1_250}
    assert read_answer(409, body, replayed=False) == Answer(
        Outcome.SOLD_OUT, code="sold_out", may_return=True, retry_after_ms=1_250
    )


@pytest.mark.parametrize("said", [None, -1, "5", 0.5])
def test_a_strange_wait_is_no_wait(said):
    body = {"code": "overloaded", "retry_after_ms": said}
    assert read_answer(503, body, replayed=False).retry_after_ms == 0


def test_the_code_of_a_group_is_read_from_its_order():
    body = {"order_id": ORDER, "group": "grp_1"}
    assert read_answer(202, body, replayed=False).group == "grp_1"
    assert not read_answer(202, {"order_id": ORDER, "group": None}, replayed=False).group
