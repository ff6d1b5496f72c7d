"""Signatures: what they cover, and how long they hold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import BadSignature
from app.payments.provider import StaleMessage
from app.payments.providers.sandbox_wire import Keys, Purpose, Signed, sign, verify

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = Keys({"k2": NEW, "k1": OLD})
NOW = 1_800_000_000
MESSAGE = Signed(Purpose.CALLBACK, "POST", "/v1/callbacks/sandbox", b'{"id":"x"}')


def test_what_was_signed_is_verified_and_names_its_nonce():
    headers = sign(KEYS, MESSAGE, NOW, "nonce-1")
    assert headers["Sandbox-Key"] == "k2"
    assert verify(KEYS, MESSAGE, headers, NOW) == "nonce-1"
    shouted = {name.upper(): value for name, value in headers.items()}
    assert verify(KEYS, MESSAGE, shouted, NOW) == "nonce-1"


def test_two_keys_hold_while_one_replaces_the_other():
    headers = sign(Keys({"k1": OLD}), MESSAGE, NOW, "n")
    assert verify(KEYS, MESSAGE, headers, NOW) == "n"
    with pytest.raises(BadSignature):
        verify(Keys({"k2": NEW}), MESSAGE, headers, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": Purpose.REQUEST},
        {"purpose": Purpose.RESPONSE},
        {"subject": "GET"},
        {"path": "/v1/callbacks/other"},
        {"body": b'{"id":"y"}'},
        {"body": b'{"id": "x"}'},
        {"body": b""},
    ],
)
def test_the_signature_covers_every_part(change: dict[str, object]):
    headers = sign(KEYS, MESSAGE, NOW, "n")
    with pytest.raises(BadSignature):
        verify(KEYS, replace(MESSAGE, **change), headers, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"Sandbox-Key": "k1"},
        {"Sandbox-Key": ""},
        {"Sandbox-Timestamp": str(NOW + 1)},
        {"Sandbox-Timestamp": ""},
        {"Sandbox-Timestamp": "-1"},
        {"Sandbox-Timestamp": "1800000000.0"},
        {"Sandbox-Timestamp": "\N{FULLWIDTH DIGIT ONE}"},
        {"Sandbox-Timestamp": "9" * 12},
        {"Sandbox-Nonce": "other"},
        {"Sandbox-Nonce": ""},
        {"Sandbox-Signature": ""},
        {"Sandbox-Signature": "0" * 64},
        {"Sandbox-Signature": "\udcff"},
    ],
)
def test_a_changed_header_is_a_bad_signature(change: dict[str, str]):
    headers = sign(KEYS, MESSAGE, NOW, "n") | change
    with pytest.raises(BadSignature):
        verify(KEYS, MESSAGE, headers, NOW)


@pytest.mark.parametrize(("age_seconds", "holds"), [(-301, False), (-300, True), (300, True)])
def test_a_signature_holds_five_minutes_either_way(age_seconds: int, holds: bool):  # noqa: FBT001  a column of the table
    headers = sign(KEYS, MESSAGE, NOW, "n")
    if holds:
        assert verify(KEYS, MESSAGE, headers, NOW + age_seconds) == "n"
    else:
        with pytest.raises(StaleMessage):
            verify(KEYS, MESSAGE, headers, NOW + age_seconds)


def test_an_old_and_forged_message_is_forged_before_it_is_old():
    headers = sign(Keys({"k2": b"x" * 32}), MESSAGE, NOW - 9_999, "n")
    with pytest.raises(BadSignature):
        verify(KEYS, MESSAGE, headers, NOW)


@pytest.mark.parametrize("secrets", [{}, {"k": b""}, {"k": b"short"}])
def test_without_a_real_key_nothing_starts(secrets: dict[str, bytes]):
    with pytest.raises(AssertionError):
        Keys(secrets)


def test_secrets_are_not_shown():
    assert "nnnn" not in repr(KEYS)


@given(st.dictionaries(st.text(), st.text()), st.binary())
def test_nothing_that_a_stranger_sends_is_verified_or_breaks_us(
    headers: dict[str, str], body: bytes
):
    with pytest.raises(BadSignature):
        verify(KEYS, replace(MESSAGE, body=body), headers, NOW)
