"""No bytes break the reading of a notification, and no changed bit passes its signature."""

import json
import random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import Untrusted
from app.payments.provider import MalformedMessage, PaySnapshot, Verified
from app.payments.providers.http import ProviderCalls
from app.payments.providers.wechatpay.provider import open_provider
from app.payments.providers.wechatpay.signing import serial_name
from tests.fakes import FixedClock
from tests.unit.payments.wechatpay.gateway_side import (
    NOW_SECONDS,
    PUBLIC_KEY_ID,
    TRANSACTION,
    account,
    notification,
    signed_headers,
)

PROVIDER: Final = open_provider(
    account(),
    ProviderCalls(),
    FixedClock(NOW_SECONDS * 1_000),
    "https://shop.example/v1/callbacks/wechatpay",
)
GOOD: Final = notification(TRANSACTION)
HEADERS: Final = signed_headers(GOOD)
SIGNED_HEADERS: Final = [name for name in HEADERS if name != "Request-ID"]
FUZZ_ROUNDS: Final = 4_000

TEXTS: Final = st.text(st.characters(exclude_categories=()), max_size=40)  # surrogates too
JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def read(headers: dict[str, str], raw: bytes) -> Verified:
    return PROVIDER.parse_notification(headers, raw)


def written(document: object) -> bytes:
    """JSON with every character escaped, so that lone surrogates can be written too."""
    return json.dumps(document).encode()


@given(st.binary())
def test_no_unsigned_bytes_are_believed(raw: bytes):
    with pytest.raises(Untrusted):
        read(HEADERS, raw)


@given(st.binary())
def test_no_signed_bytes_break_the_reading(raw: bytes):
    with pytest.raises(MalformedMessage):
        read(signed_headers(raw), raw)


def test_half_a_surrogate_pair_in_a_name_is_refused_without_being_quoted():
    raw = b'{"planted\\ud800":1,' + GOOD[1:]
    with pytest.raises(MalformedMessage) as refused:
        read(signed_headers(raw), raw)
    assert "planted" not in str(refused.value)


@given(st.binary(max_size=200))
def test_no_sealed_bytes_break_the_reading(opened: bytes):
    raw = notification(opened)
    with pytest.raises(MalformedMessage):
        read(signed_headers(raw), raw)


@given(st.dictionaries(st.sampled_from(SIGNED_HEADERS), TEXTS))
def test_no_headers_break_the_reading(changed: dict[str, str]):
    headers = HEADERS | changed
    try:
        told = read(headers, GOOD)
    except Untrusted:
        return
    assert told.raw == GOOD


@given(st.integers(min_value=0, max_value=len(GOOD) * 8 - 1))
def test_no_changed_bit_of_the_body_verifies(bit: int):
    raw = bytearray(GOOD)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Untrusted):
        read(HEADERS, bytes(raw))


def test_no_changed_bit_of_any_signed_header_verifies():
    for name in SIGNED_HEADERS:
        for place, character in enumerate(HEADERS[name]):
            for bit in range(8):
                changed = chr(ord(character) ^ 1 << bit)
                value = HEADERS[name][:place] + changed + HEADERS[name][place + 1 :]
                assert serial_name(value) != serial_name(PUBLIC_KEY_ID)
                with pytest.raises(Untrusted):
                    read(HEADERS | {name: value}, GOOD)


@given(st.sampled_from(sorted(TRANSACTION)), JSON_VALUES)
def test_no_value_of_any_field_breaks_the_reading(field: str, value: object):
    raw = notification(written(TRANSACTION | {field: value}))
    try:
        about = read(signed_headers(raw), raw).event.about
    except MalformedMessage:
        return
    assert isinstance(about, PaySnapshot)
    assert type(about.amount_minor) is int
    assert about.amount_minor >= 1


@given(
    st.sampled_from(
        ["id", "create_time", "event_type", "resource_type", "resource", "summary", "algorithm"]
    ),
    JSON_VALUES,
)
def test_no_value_around_the_seal_breaks_the_reading(field: str, value: object):
    raw = written(json.loads(GOOD) | {field: value})
    try:
        told = read(signed_headers(raw), raw)
    except MalformedMessage:
        return
    assert told.event.notification_id.isascii()


@given(
    st.sampled_from(["algorithm", "nonce", "ciphertext", "associated_data", "original_type"]),
    JSON_VALUES,
)
def test_no_value_of_the_seal_breaks_the_reading(field: str, value: object):
    document = json.loads(GOOD)
    document["resource"][field] = value
    raw = written(document)
    with pytest.raises(MalformedMessage):
        read(signed_headers(raw), raw)


def test_a_fixed_budget_of_broken_messages_is_survived():
    chance = random.Random(20_261_122)  # noqa: S311  the same breaks every time
    for _ in range(FUZZ_ROUNDS):
        raw = broken(bytearray(GOOD), chance)
        # Signing is what costs time: one in eight is signed, and so is read to its end.
        headers = signed_headers(raw) if chance.random() < 0.125 else HEADERS
        try:
            told = read(headers, raw)
        except Untrusted:
            continue
        assert told.event.about.amount_minor == 100


def broken(raw: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(1, 6)):
        start = chance.randrange(len(raw) + 1)
        end = min(len(raw), start + chance.randrange(1, 40))
        match chance.randrange(4):
            case 0:
                del raw[start:end]
            case 1:
                raw[start:start] = raw[start:end]
            case 2:
                raw[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
            case _:
                raw[start:end] = chance.choice(
                    [b'"', b"{", b"}", b"[", b"\\u0000", b"1e999", b"\xff"]
                )
    return bytes(raw)
