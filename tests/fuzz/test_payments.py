"""A fixed share of the fuzzing of tests/fuzz/payments.py, the same in every run."""

from collections import Counter

from tests.fuzz.payments import READERS, play

SEED = 20_261_122
ROUNDS = 2_100


def test_broken_messages_are_refused_or_read_as_what_was_signed():
    rounds, taken = Counter[str](), Counter[str]()
    for number in range(ROUNDS):
        name, was_taken = play(SEED, number)
        rounds[name] += 1
        taken[name] += was_taken
    assert rounds == dict.fromkeys(READERS, ROUNDS // len(READERS))
    # What is broken before it is signed is at times still a message: it is not broken too much.
    for name in ("alipay form, signed", "alipay answer, signed", "wechatpay, sealed"):
        assert 0 < taken[name] < rounds[name], taken
