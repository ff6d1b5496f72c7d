"""Sealed fields: what opens them, what does not, and which keys are refused."""

import base64
import itertools
import json

import pytest

from app.fulfilment.seals import FieldSeals, read_seal_keys
from app.kernel.errors import BadConfiguration, BrokenState, SealKeyMissing
from app.kernel.ids import OrderKey

ORDER = OrderKey(7, 1, 2, 99)


def key(letter):
    return base64.urlsafe_b64encode(letter.encode() * 32).rstrip(b"=").decode()


def written(*keys):
    return json.dumps([{"kid": kid, "key": key(letter), "use": use} for kid, letter, use in keys])


def seals(*keys):
    return FieldSeals(read_seal_keys(written(*keys)))


def test_a_field_opens_with_the_key_that_sealed_it():
    own = seals(("a", "x", "seal"))
    sealed = own.seal(ORDER, "receiver", "王小明")

    assert own.open("a", ORDER, "receiver", sealed) == "王小明"
    assert "王小明".encode() not in sealed


def test_the_same_text_is_never_sealed_alike():
    own = seals(("a", "x", "seal"))

    assert len({own.seal(ORDER, "receiver", "ann") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("order", "name", "kid"),
    [
        (ORDER._replace(seq=98), "receiver", "a"),
        (ORDER._replace(sale=8), "receiver", "a"),
        (ORDER, "address", "a"),
        (ORDER, "receiver", "b"),
        (ORDER, "receiver", "gone"),
    ],
    ids=["another order", "another sale", "another field", "another key", "no such key"],
)
def test_a_field_does_not_open_elsewhere(order, name, kid):
    own = seals(("a", "x", "seal"), ("b", "y", "open"))
    sealed = own.seal(ORDER, "receiver", "planted")

    with pytest.raises((BrokenState, SealKeyMissing)) as refused:
        own.open(kid, order, name, sealed)
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("at", [0, 11, 12, -1])
def test_a_changed_byte_does_not_open(at):
    own = seals(("a", "x", "seal"))
    sealed = bytearray(own.seal(ORDER, "receiver", "ann"))
    sealed[at] ^= 1

    with pytest.raises(BrokenState):
        own.open("a", ORDER, "receiver", bytes(sealed))


def test_each_step_of_a_rotation_opens_what_the_one_before_sealed():
    steps = [
        seals(("a", "x", "seal")),
        seals(("a", "x", "seal"), ("b", "y", "open")),
        seals(("b", "y", "seal"), ("a", "x", "open")),
    ]
    for mine, neighbour in itertools.pairwise(steps):
        for writer, reader in ((mine, neighbour), (neighbour, mine)):
            sealed = writer.seal(ORDER, "mobile", "13800138000")
            assert reader.open(writer.kid, ORDER, "mobile", sealed) == "13800138000"


def test_a_number_is_found_under_every_live_key():
    before, after = seals(("a", "x", "seal")), seals(("b", "y", "seal"), ("a", "x", "open"))

    assert before.hash_mobile("+8613800138000") in after.hashes_of_mobile("+8613800138000")
    assert after.hash_mobile("+8613800138000") != before.hash_mobile("+8613800138000")
    assert after.hash_mobile("+8613800138000") != after.hash_mobile("+8613800138001")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "exactly one key must have use = seal"),
        ("[]", "exactly one key must have use = seal"),
        ("nonsense", "malformed"),
        ("{}", "Expected `array`"),
        ('[{"kid": "a"}]', "missing required field"),
        (written(("a", "x", "open")), "exactly one"),
        (written(("a", "x", "seal"), ("b", "y", "seal")), "exactly one"),
        (written(("a", "x", "seal"), ("a", "y", "open")), "two keys have one kid"),
        (written(("a", "x", "seal"), ("b", "x", "open")), "two kids have one key"),
        (written(("", "x", "seal")), "kid must have"),
        (written(("a\n", "x", "seal")), "kid must have"),
        (written(("a", "x", "keep")), "Invalid enum value"),
        ('[{"kid": "a", "key": "c2hvcnQ", "use": "seal"}]', "32 bytes"),
        ('[{"kid": "a", "key": "not base64!", "use": "seal"}]', "not base64url"),
        ('[{"kid": "a", "key": "x", "use": "seal", "alg": "none"}]', "unknown field"),
    ],
)
def test_malformed_keys_stop_the_start_and_are_not_told(text, problem):
    with pytest.raises(BadConfiguration) as refused:
        read_seal_keys(text)

    assert problem in str(refused.value)
    assert key("x") not in str(refused.value)
    assert "DOORBUSTER_FULFILMENT__DELIVERY_KEYS" in str(refused.value)
