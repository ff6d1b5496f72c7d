"""Alipay's notifications: what is genuine is read, what is forged has no effect."""

import base64
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import BadSignature
from app.payments.provider import (
    Event,
    MalformedMessage,
    MerchantAccount,
    PaySnapshot,
    PayState,
    Refusal,
    TransferSnapshot,
    TransferState,
)
from app.payments.providers.alipay.notifications import acknowledgement, read_notification
from tests.unit.payments.alipay.alipay_side import (
    APP_ID,
    NUMBER,
    SELLER_ID,
    TRADE_NO,
    bare,
    key,
    notification_fields,
    public_pem,
    signature,
    signed_form,
    signed_text,
    weak_signature,
)

ACCOUNT: Final = MerchantAccount("", SELLER_ID, APP_ID)
KEYS: Final = (key("alipay").public_key(),)
GENUINE: Final = signed_form(notification_fields())


def read(raw: bytes) -> Event:
    return read_notification(raw, KEYS, ACCOUNT)


def told(**changed: str | None) -> PaySnapshot:
    about = read(signed_form(notification_fields(**changed))).about
    assert isinstance(about, PaySnapshot)
    return about


def test_a_paid_trade_is_read_into_what_every_provider_tells():
    event = read(GENUINE)
    assert event.provider == "alipay"
    assert event.notification_id == "2026112200222120005091234567890123"
    assert event.event_at == datetime(2026, 11, 22, 4, 0, 5, tzinfo=UTC)
    assert event.about == PaySnapshot(
        number=NUMBER,
        state=PayState.PAID,
        merchant_id=SELLER_ID,
        app_id=APP_ID,
        provider_number=TRADE_NO,
        amount_minor=1234,
        currency="CNY",
        paid_at=datetime(2026, 11, 22, 4, 0, 4, tzinfo=UTC),
    )


# trade_status   refund_fee gmt_payment -> state
STATES: Final = """
  WAIT_BUYER_PAY -          -              not_paid
  TRADE_SUCCESS  -          told           paid
  TRADE_SUCCESS  0.00       told           paid
  TRADE_SUCCESS  0.01       told           partial_refund
  TRADE_SUCCESS  12.34      told           refunded
  TRADE_FINISHED -          told           paid
  TRADE_CLOSED   -          -              closed
  TRADE_CLOSED   0.00       -              closed
  TRADE_CLOSED   12.34      told           refunded
  TRADE_CLOSED   12.34      -              refunded
  TRADE_CLOSED   -          told           refunded
  TRADE_PENDING  -          told           unknown
  trade_success  -          told           unknown
"""


@pytest.mark.parametrize("line", STATES.strip().splitlines())
def test_a_status_is_judged_with_what_came_back(line: str):
    status, refunded, paid, state = line.split()
    snapshot = told(
        trade_status=status,
        total_amount="12.34",
        refund_fee=None if refunded == "-" else refunded,
        gmt_payment=None if paid == "-" else "2026-11-22 12:00:04",
    )
    assert snapshot.state == state


# Amounts, and the minor units they are; `-` is a refusal.
AMOUNTS: Final = """
  0.01          1
  1             100
  1.5           150
  100000000.00  10000000000
  12.340        -
  .5            -
  5.            -
  01.00         -
  -12.34        -
  +12.34        -
  1e2           -
  1E-2          -
  NaN           -
  Infinity      -
  0x10          -
  1,234.00      -
  12.34_        -
  ١٢.٣٤         -
  \uff11\uff12.34  -
  99999999999999.00  -
"""


@pytest.mark.parametrize("line", AMOUNTS.strip().splitlines())
def test_an_amount_is_a_plain_decimal_of_two_places(line: str):
    text, minor = line.split()
    raw = signed_form(notification_fields(total_amount=text))
    if minor == "-":
        with pytest.raises(MalformedMessage):
            read(raw)
    else:
        assert told(total_amount=text).amount_minor == int(minor)


def test_old_and_new_key_live_together():
    both = (key("new alipay").public_key(), key("alipay").public_key())
    for signer in ("alipay", "new alipay"):
        raw = signed_form(notification_fields(), signer)
        assert read_notification(raw, both, ACCOUNT).notification_id
    with pytest.raises(BadSignature):
        read_notification(signed_form(notification_fields(), "app"), both, ACCOUNT)


def test_a_message_a_year_old_is_as_good_as_new():
    assert told(notify_time="2025-11-22 12:00:05").state is PayState.PAID


def forged(**changed: str | None) -> bytes:
    """A genuine signature over genuine fields, some of which were changed afterwards."""
    fields = notification_fields()
    signed = {**fields, "sign": signature(signed_text(fields))}
    for name, value in changed.items():
        if value is None:
            signed.pop(name, None)
        else:
            signed[name] = value
    return urlencode(signed).encode()


def appended(text: str) -> bytes:
    return GENUINE + text.encode()


def weak(**changed: str) -> bytes:
    """Signed with SHA-1 by Alipay's own key."""
    fields = notification_fields(**changed)
    return urlencode({**fields, "sign": weak_signature(signed_text(fields))}).encode()


def folded() -> bytes:
    """The same signed text, with a field hidden in its neighbour's value."""
    fields = notification_fields(refund_fee="12.34")
    sign = signature(signed_text(fields))
    refunded = fields.pop("refund_fee")
    fields["receipt_amount"] += f"&refund_fee={refunded}"
    return urlencode({**fields, "sign": sign}).encode()


def named_away() -> bytes:
    """The same signed text, with a field hidden in a name together with its neighbour."""
    fields = notification_fields(refund_fee="12.34")
    sign = signature(signed_text(fields))
    received, refunded = fields.pop("receipt_amount"), fields.pop("refund_fee")
    fields[f"receipt_amount={received}&refund_fee"] = refunded
    return urlencode({**fields, "sign": sign}).encode()


def unfolded() -> bytes:
    """The same signed text, with a new field made of a value's end."""
    fields = notification_fields(subject="toy&total_amount=0.01")
    sign = signature(signed_text(fields))
    del fields["total_amount"]
    fields["subject"], fields["total_amount"] = "toy", "0.01&total_amount=12.34"
    return urlencode({**fields, "sign": sign}).encode()


FORGED: Final = {
    # what was changed after signing
    "amount raised": forged(total_amount="99.99"),
    "amount lowered": forged(total_amount="0.01"),
    "amount of another spelling": forged(total_amount="12.340"),
    "another order": forged(out_trade_no="Z" * 28),
    "another trade": forged(trade_no="2026112222001400000000000009"),
    "another seller": forged(seller_id="2088999999999999"),
    "another app": forged(app_id="2021999999999999"),
    "another status": forged(trade_status="TRADE_FINISHED"),
    "another notification": forged(notify_id="x"),
    "another time of payment": forged(gmt_payment="2026-11-22 13:00:04"),
    "a refund added": forged(refund_fee="12.34"),
    "an empty field added": forged(body=""),
    "an unknown field added": forged(whatever="1"),
    "a field removed": forged(receipt_amount=None),
    "the amount removed": forged(total_amount=None),
    "a space at the end of a value": forged(out_trade_no=f"{NUMBER} "),
    "a newline at the end of a value": forged(out_trade_no=f"{NUMBER}\n"),
    "a letter of another case": forged(out_trade_no=NUMBER.lower()),
    "the subject decomposed": forged(subject="Order 0123 一件\u0301"),
    # the signature itself
    "no signature": forged(sign=None),
    "an empty signature": forged(sign=""),
    "a signature of nothing": forged(sign=signature(b"")),
    "a signature of all fields": forged(sign=signature(urlencode(notification_fields()).encode())),
    "no base64": forged(sign="%%%"),
    "a signature cut": forged(sign=signature(signed_text(notification_fields()))[:-4]),
    "a signature with a space": forged(sign=signature(signed_text(notification_fields())) + " "),
    "zeros for a signature": forged(sign=base64.b64encode(bytes(256)).decode()),
    "our own key": signed_form(notification_fields(), "app"),
    "another merchant's Alipay": signed_form(notification_fields(), "stranger"),
    "a very long signature": forged(sign="A" * 60_000),
    # another algorithm
    "SHA-1 called RSA2": weak(),
    "SHA-1 called RSA": weak(sign_type="RSA"),
    "RSA2 called RSA": forged(sign_type="RSA"),
    "another case of RSA2": forged(sign_type="rsa2"),
    "no algorithm": forged(sign_type=None),
    "MD5": forged(sign_type="MD5"),
    "HMAC with the public key": forged(sign_type="HMAC", sign=bare(public_pem("alipay"))),
    # fields twice
    "the amount twice": appended("&total_amount=12.34"),
    "the amount twice, encoded": appended("&total%5Famount=0.01"),
    "the status twice": appended("&trade_status=TRADE_SUCCESS"),
    "the signature twice": appended("&sign=x"),
    "a name twice, with a plus": appended("&a+b=1&a%20b=2"),
    # two readings of one text
    "a field folded into another": folded(),
    "a field unfolded from another": unfolded(),
    "a field folded into another's name": named_away(),
    # decoded twice, or otherwise
    "encoded twice": quote(GENUINE.decode()).encode(),
    "percent of an escaped value": GENUINE.replace(
        b"total_amount=12.34", b"total_amount=12%252E34"
    ),
    "semicolons": GENUINE.replace(b"&", b";"),
    # no form at all
    "empty": b"",
    "JSON": b'{"trade_status":"TRADE_SUCCESS"}',
    "XML": b"<xml><trade_status>TRADE_SUCCESS</trade_status></xml>",
    "only ampersands": b"&&&&",
    "a field without a value": appended("&flag"),
    "a value without a field": appended("&=1"),
    "a broken escape": appended("&x=%GG"),
    "half an escape": appended("&x=%4"),
    "no UTF-8": appended("&x=%ff%fe"),
    "an overlong slash": appended("&x=%c0%af"),
    "bytes that are no ASCII": GENUINE + "&x=一".encode(),
    "a byte order mark": b"\xef\xbb\xbf" + GENUINE,
    "a thousand fields": appended("".join(f"&f{n}=1" for n in range(1_000))),
    "a null byte": appended("&x=\x00"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_refused(name: str):
    assert len(FORGED) >= 40
    with pytest.raises((BadSignature, MalformedMessage)):
        read(FORGED[name])


def test_the_folded_forgeries_have_a_signature_that_holds():
    # They are refused for being ambiguous: the signature cannot tell them apart.
    for raw in (folded(), unfolded()):
        with pytest.raises(MalformedMessage, match="hidden in another"):
            read(raw)


# Signed by Alipay all the same.
SIGNED_AND_UNREADABLE: Final = {
    "no status": {"trade_status": None},
    "no number": {"out_trade_no": None},
    "an empty number": {"out_trade_no": ""},
    "no trade": {"trade_no": None},
    "a very long trade": {"trade_no": "2" * 65},
    "no seller": {"seller_id": None},
    "no app": {"app_id": None},
    "no notification id": {"notify_id": None},
    "a very long notification id": {"notify_id": "x" * 129},
    "a notification id with a line break": {"notify_id": "x\ny"},
    "no time": {"notify_time": None},
    "a time of another form": {"notify_time": "2026-11-22T12:00:05"},
    "no such day": {"notify_time": "2026-02-30 12:00:05"},
    "a year out of reach": {"notify_time": "0001-01-01 00:00:00"},
    "another type": {"notify_type": "batch_refund_notify"},
    "no type": {"notify_type": None},
    "another character set": {"charset": "GBK"},
    "a malformed refund": {"refund_fee": "1e3"},
    "a malformed time of payment": {"gmt_payment": "yesterday"},
    "a transfer without content": {"msg_method": "alipay.fund.trans.order.changed"},
}


@pytest.mark.parametrize("name", SIGNED_AND_UNREADABLE)
def test_what_is_signed_and_no_message_is_malformed(name: str):
    with pytest.raises(MalformedMessage):
        read(signed_form(notification_fields(**SIGNED_AND_UNREADABLE[name])))


@given(st.binary())
def test_no_bytes_break_the_reading(raw: bytes):
    with pytest.raises((BadSignature, MalformedMessage)):
        read(raw)


@given(st.dictionaries(st.text(), st.text(), max_size=8))
def test_no_form_breaks_the_reading(fields: dict[str, str]):
    with pytest.raises((BadSignature, MalformedMessage)):
        read(urlencode(fields).encode())


@given(st.dictionaries(st.sampled_from(sorted(notification_fields())), st.text(), max_size=4))
def test_no_signed_value_breaks_the_reading(changed: dict[str, str]):
    try:
        event = read(signed_form(notification_fields(**changed)))
    except (BadSignature, MalformedMessage):
        return
    assert isinstance(event.about, PaySnapshot)
    assert type(event.about.amount_minor) is int


@given(st.integers(0, len(GENUINE) - 1), st.integers(0, 255))
def test_no_changed_byte_changes_what_is_read(place: int, byte: int):
    changed = GENUINE[:place] + bytes([byte]) + GENUINE[place + 1 :]
    try:
        event = read(changed)
    except (BadSignature, MalformedMessage):
        return
    assert event == read(GENUINE)  # %2f is %2F, and a plus is a space


def transfer_form(**changed: object) -> bytes:
    content = {
        "out_biz_no": "T0001",
        "status": "SUCCESS",
        "product_code": "TRANS_ACCOUNT_NO_PWD",
        "biz_scene": "DIRECT_TRANSFER",
        "trans_amount": "8.80",
        "order_id": "20261122110070000006530000000001",
        **changed,
    }
    return signed_form(
        {
            "msg_method": "alipay.fund.trans.order.changed",
            "notify_id": "n1",
            "utc_timestamp": "1795320000000",
            "app_id": APP_ID,
            "charset": "utf-8",
            "version": "1.1",
            "sign_type": "RSA2",
            "biz_content": msgspec.json.encode(content).decode(),
        }
    )


def test_a_transfer_is_told_at_the_same_address():
    event = read(transfer_form())
    assert event.notification_id == "n1"
    assert event.about == TransferSnapshot(
        number="T0001",
        state=TransferState.SUCCEEDED,
        merchant_id=SELLER_ID,
        app_id=APP_ID,
        provider_number="20261122110070000006530000000001",
        amount_minor=880,
        currency="CNY",
    )


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"status": "FAIL", "error_code": "PAYEE_NOT_EXIST"}, TransferState.FAILED),
        ({"status": "REFUND"}, TransferState.FAILED),
        ({"status": "DEALING"}, TransferState.PROCESSING),
        ({"status": "PERHAPS"}, TransferState.UNKNOWN),
        ({"product_code": "STD_RED_PACKET"}, None),
        ({"trans_amount": "8.800"}, None),
        ({"trans_amount": [8]}, None),
        ({"out_biz_no": 7}, None),
    ],
)
def test_a_transfers_status_is_one_that_we_know_or_unknown(changed, state):
    if state is None:
        with pytest.raises(MalformedMessage):
            read(transfer_form(**changed))
    else:
        about = read(transfer_form(**changed)).about
        assert isinstance(about, TransferSnapshot)
        assert about.state is state


def test_success_is_seven_letters_and_everything_else_is_fail():
    ok = acknowledgement(None)
    assert (ok.status, ok.content_type, ok.body) == (200, "text/plain", b"success")
    for refusal in Refusal:
        reply = acknowledgement(refusal)
        assert (reply.status, reply.content_type, reply.body) == (200, "text/plain", b"fail")
