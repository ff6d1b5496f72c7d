"""Reading a callback is pure: whatever is signed, it is an event or a refusal, never a crash."""

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.payments.provider import (
    MalformedMessage,
    PaySnapshot,
    PayState,
    RefundSnapshot,
    Refusal,
    Verified,
)
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.providers.sandbox_wire import Keys, Purpose, Signed, sign
from tests.fakes import FixedClock

NOW_SECONDS: Final = 1_800_000_000
KEYS: Final = {"k": b"k" * 32}
PATH: Final = "/v1/callbacks/sandbox"
PROVIDER: Final = SandboxProvider(
    SandboxProviderSettings(
        url="http://gateway.example", callback_url=f"https://shop.example{PATH}", keys=KEYS
    ),
    FixedClock(NOW_SECONDS * 1_000),
)
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
PAYMENT: Final = {
    "number": NUMBER,
    "merchant_id": "m1",
    "app_id": "a1",
    "state": "paid",
    "amount_minor": 100,
    "currency": "CNY",
    "page": "",
    "provider_number": "p1",
    "paid_at": "2026-11-22T12:00:00Z",
}
REFUND: Final = {
    "number": f"R{NUMBER}L01",
    "payment_number": NUMBER,
    "merchant_id": "m1",
    "status": "succeeded",
    "amount_minor": 100,
    "currency": "CNY",
    "provider_number": "p2",
}


def read(raw: bytes) -> Verified:
    message = Signed(Purpose.CALLBACK, "POST", PATH, raw)
    return PROVIDER.parse_notification(sign(Keys(KEYS), message, NOW_SECONDS, "n"), raw)


def callback(**fields: object) -> bytes:
    return msgspec.json.encode({"id": "evt-1", "created_at": "2026-11-22T12:00:00Z", **fields})


def test_a_payment_and_a_refund_are_read_into_what_every_provider_tells():
    payment = read(callback(payment=PAYMENT)).event
    refund = read(callback(refund=REFUND, news="ignored")).event
    assert (payment.provider, payment.notification_id) == ("sandbox", "evt-1")
    assert isinstance(payment.about, PaySnapshot)
    assert (payment.about.number, payment.about.state) == (NUMBER, PayState.PAID)
    assert isinstance(refund.about, RefundSnapshot)
    assert refund.about.attempt_number == NUMBER


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id":"evt-1","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        callback(),
        callback(payment=PAYMENT, refund=REFUND),
        callback(payment=PAYMENT, id=""),
        callback(payment=PAYMENT, id="a\x00b"),
        callback(payment=PAYMENT, created_at="2026-11-22T12:00:00"),
        callback(payment=PAYMENT | {"number": f"{NUMBER}\n"}),
        callback(payment=PAYMENT | {"state": "perhaps"}),
        callback(payment=PAYMENT | {"amount_minor": 100.0}),
        callback(payment=PAYMENT | {"amount_minor": True}),
        callback(payment=PAYMENT | {"amount_minor": "100"}),
        callback(payment=PAYMENT | {"amount_minor": -1}),
        callback(payment=PAYMENT | {"currency": "cny"}),
        callback(payment=PAYMENT | {"provider_number": "p\x00"}),
    ],
)
def test_what_is_signed_and_no_message_is_malformed(raw: bytes):
    with pytest.raises(MalformedMessage):
        read(raw)


@given(st.binary())
def test_no_bytes_break_the_reading(raw: bytes):
    with pytest.raises(MalformedMessage):
        read(raw)


JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(PAYMENT)), JSON_VALUES)
def test_no_value_of_any_field_breaks_the_reading(field: str, value: object):
    try:
        raw = callback(payment={**PAYMENT, field: value})
    except (UnicodeEncodeError, msgspec.ValidationError, OverflowError):
        return  # no JSON to begin with
    try:
        told = read(raw)
    except MalformedMessage:
        return
    assert isinstance(told.event.about, PaySnapshot)
    assert type(told.event.about.amount_minor) is int


def test_every_refusal_has_a_status_that_makes_the_gateway_repeat():
    assert PROVIDER.ack().status == 200
    for refusal in Refusal:
        assert 400 <= PROVIDER.ack(refusal).status < 600
