import inspect

import pytest

from app.kernel import errors
from app.kernel.errors import (
    BucketRecovering,
    DoorbusterError,
    IdempotencyMismatch,
    OutcomeUnknown,
    ShardUnavailable,
    Unavailable,
)

ALL = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, DoorbusterError)
]


def test_the_message_is_the_docstring_with_the_fields_behind_it():
    assert str(ShardUnavailable()) == "A Postgres shard did not answer."
    assert str(ShardUnavailable(shard=3)) == "A Postgres shard did not answer. (shard=3)"


def test_fields_can_be_read_back():
    assert ShardUnavailable(shard=3, why="OSError").fields == {"shard": 3, "why": "OSError"}


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_says_in_one_sentence_what_happened(error):
    sentence = (error.__doc__ or "").strip().splitlines()[0]

    assert sentence.endswith(".")
    assert error.code == error.code.lower()


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_drawing_at_the_top_names_every_error(error):
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ShardUnavailable, "shard_unavailable", True),
        (BucketRecovering, "recovering", True),
        (OutcomeUnknown, "outcome_unknown", True),
        (IdempotencyMismatch, "idempotency_mismatch", False),
        (DoorbusterError, "internal_error", False),
    ],
)
def test_codes_and_whether_to_try_again_are_part_of_the_contract(error, code, retryable):
    assert (error.code, error.retryable) == (code, retryable)


def test_unknown_is_not_unavailable():
    assert not issubclass(OutcomeUnknown, Unavailable)
