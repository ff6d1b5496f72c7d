"""UnionPay's notifications: the certificate that comes along is what must be checked."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlencode

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from hypothesis import example, given
from hypothesis import strategies as st

from app.kernel.errors import BadSignature
from app.payments.provider import (
    Event,
    MalformedMessage,
    PaySnapshot,
    PayState,
    RefundSnapshot,
    RefundStatus,
    Refusal,
)
from app.payments.providers.unionpay.notifications import acknowledgement, read_notification
from app.payments.providers.unionpay.signing import Trust
from tests.unit.payments.unionpay.unionpay_side import (
    AUTHORITY,
    COMPANY,
    ISSUER,
    MERCHANT,
    MERCHANT_ID,
    NOW,
    NUMBER,
    QUERY_ID,
    REFUND_NUMBER,
    ROOT,
    UNIONPAY,
    certificate,
    named,
    notification_fields,
    pem,
    signature,
    signed,
    signed_form,
)

TRUST: Final = Trust(roots=[ROOT], authorities=[AUTHORITY], names=[COMPANY])
GENUINE: Final = signed_form(notification_fields())


def read(raw: bytes, now: datetime = NOW) -> Event:
    return read_notification(raw, TRUST, now)


def test_a_paid_order_is_read_into_what_every_provider_tells():
    event = read(GENUINE)
    assert (event.provider, event.notification_id) == ("unionpay", f"01:{QUERY_ID}:00")
    assert event.event_at == datetime(2026, 11, 22, 3, 59, 58, tzinfo=UTC)
    assert event.about == PaySnapshot(
        number=NUMBER,
        state=PayState.PAID,
        merchant_id=MERCHANT_ID,
        provider_number=QUERY_ID,
        amount_minor=1234,
        currency="CNY",
        paid_at=datetime(2026, 11, 22, 4, 0, 4, tzinfo=UTC),
    )


# txnType respCode -> state or status
CODES: Final = """
  01      00          paid
  01      A6          paid
  01      03          paying
  01      04          paying
  01      05          paying
  01      64          not_paid
  01      99          unknown
  01      42          unknown
  04      00          succeeded
  04      A6          succeeded
  04      05          processing
  04      36          closed
  04      99          unknown
  31      00          succeeded
"""


@pytest.mark.parametrize("line", CODES.strip().splitlines())
def test_a_code_means_what_the_table_says(line: str):
    kind, code, state = line.split()
    number = NUMBER if kind == "01" else REFUND_NUMBER
    fields = notification_fields(txnType=kind, respCode=code, orderId=number)
    about = read(signed_form(fields)).about
    if isinstance(about, PaySnapshot):
        assert about.state == state
    else:
        assert isinstance(about, RefundSnapshot)
        assert (about.status, about.attempt_number) == (state, NUMBER)
        assert about.status is not RefundStatus.NOT_FOUND


def test_the_test_gateway_is_known_by_a_name_of_its_own():
    test_signer = certificate("unionpay", named("00040000:SIGN"), ISSUER, serial=3)
    raw = signed_form(notification_fields(), brought=pem(test_signer))
    with pytest.raises(BadSignature):
        read(raw)
    trust = Trust(roots=[ROOT], authorities=[AUTHORITY], names=["00040000:SIGN"])
    assert read_notification(raw, trust, NOW).provider == "unionpay"


def forged(**changed: str | None) -> bytes:
    """A genuine signature over genuine fields, some of which were changed afterwards."""
    fields: dict[str, str] = signed(notification_fields())
    for name, value in changed.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    return urlencode(fields).encode()


def under(signer: str, subject: str, issuer: tuple[str, str] | None = None, **how: object) -> bytes:
    """Signed rightly, by the key of a certificate of this subject and issuer."""
    brought = certificate(signer, subject, issuer, serial=9, **how)  # type: ignore[arg-type]
    return signed_form(notification_fields(), signer, pem(brought))


def old_version() -> bytes:
    fields = {**notification_fields(version="5.0.0"), "signPubKeyCert": pem(UNIONPAY)}
    return urlencode({**fields, "signature": signature(fields, digest=SHA1())}).encode()  # noqa: S303


def weak() -> bytes:
    fields = {**notification_fields(), "signPubKeyCert": pem(UNIONPAY)}
    return urlencode({**fields, "signature": signature(fields, digest=SHA1())}).encode()  # noqa: S303


def folded() -> bytes:
    """The same signed text, with the response code hidden in its neighbour's value."""
    fields = signed(notification_fields(respCode="64"))
    fields["queryId"] += f"&respCode={fields.pop('respCode')}"
    return urlencode(fields).encode()


def named_away() -> bytes:
    """The same signed text, with the currency hidden in a name together with its neighbour."""
    fields = signed(notification_fields(txnType="04", currencyCode="840"))
    biz_type, currency = fields.pop("bizType"), fields.pop("currencyCode")
    fields[f"bizType={biz_type}&currencyCode"] = currency
    return urlencode(fields).encode()


DAY: Final = timedelta(days=1)
FORGED: Final = {
    # what was changed after signing
    "amount raised": forged(txnAmt="9999"),
    "amount lowered": forged(txnAmt="1"),
    "another order": forged(orderId="Z" * 28),
    "another merchant": forged(merId="777290058110049"),
    "a failure made a success": urlencode(
        {**signed(notification_fields(respCode="64")), "respCode": "00"}
    ).encode(),
    "another transaction": forged(queryId="1"),
    "another kind": forged(txnType="04"),
    "another currency": forged(currencyCode="840"),
    "a field removed": forged(traceNo=None),
    "a field added": forged(whatever="1"),
    "a space at the end of a value": forged(orderId=f"{NUMBER} "),
    # the signature and its method
    "no signature": forged(signature=None),
    "an empty signature": forged(signature=""),
    "zeros for a signature": forged(signature=base64.b64encode(bytes(256)).decode()),
    "another signer": signed_form(notification_fields(), "merchant"),
    "version 5.0.0": old_version(),
    "SHA-1 under 5.1.0": weak(),
    "signed by a shared secret": forged(signMethod="11"),
    "no version": forged(version=None),
    # the certificate
    "no certificate": forged(signPubKeyCert=None),
    "an empty certificate": forged(signPubKeyCert=""),
    "no certificate at all": forged(signPubKeyCert="nonsense"),
    "a very long certificate": forged(signPubKeyCert="A" * 20_000),
    "a merchant's certificate": signed_form(notification_fields(), "merchant", pem(MERCHANT)),
    "self-signed, with the right name": under("stranger", named(COMPANY)),
    "the right name, another authority": under("stranger", named(COMPANY), ("stranger", "OCA9")),
    "the authority's name, another key": under("stranger", named(COMPANY), ("stranger", ISSUER[1])),
    "issued by a merchant": under("stranger", named(COMPANY), ("merchant", named("某某商城"))),
    "expired": under("unionpay", named(COMPANY), ISSUER, since=-9 * DAY, until=-DAY),
    "not yet valid": under("unionpay", named(COMPANY), ISSUER, since=DAY, until=9 * DAY),
    "the name in another place": under("unionpay", f"041@{COMPANY}@831@1", ISSUER),
    "the name alone": under("unionpay", COMPANY, ISSUER),
    "the name with a space": under("unionpay", named(f"{COMPANY} "), ISSUER),
    "the name longer": under("unionpay", named(f"{COMPANY}A"), ISSUER),
    "another company": under("unionpay", named("网银在线"), ISSUER),
    "the authority itself": signed_form(notification_fields(), "authority", pem(AUTHORITY)),
    "two certificates": signed_form(notification_fields(), brought=pem(UNIONPAY, AUTHORITY)),
    "a merchant's before UnionPay's": signed_form(
        notification_fields(), "merchant", pem(MERCHANT, UNIONPAY)
    ),
    # the form
    "a field twice": GENUINE + b"&txnAmt=1234",
    "a field folded into another": folded(),
    "a field folded into another's name": named_away(),
    "encoded twice": quote(GENUINE.decode()).encode(),
    "empty": b"",
    "JSON": b'{"respCode":"00"}',
    "no UTF-8": GENUINE + b"&x=%ff",
    "a broken escape": GENUINE + b"&x=%G0",
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_refused(name: str):
    assert len(FORGED) >= 20
    with pytest.raises((BadSignature, MalformedMessage)):
        read(FORGED[name])


SIGNED_AND_UNREADABLE: Final = {
    "no order": {"orderId": None},
    "an order with a line break": {"orderId": f"{NUMBER}\n"},
    "no code": {"respCode": None},
    "no number of the transaction": {"queryId": None},
    "no time": {"txnTime": None},
    "no such day": {"txnTime": "20260230000000"},
    "a time with letters": {"txnTime": "2026112211595x"},
    "an amount with a point": {"txnAmt": "12.34"},
    "a negative amount": {"txnAmt": "-1234"},
    "an amount with a zero before it": {"txnAmt": "01234"},
    "an amount in another script": {"txnAmt": "١٢٣٤"},
    "a long amount": {"txnAmt": "1" * 13},
    "a preauthorization": {"txnType": "02"},
    "another character set": {"encoding": "GBK"},
}


@pytest.mark.parametrize("name", SIGNED_AND_UNREADABLE)
def test_what_is_signed_and_no_message_is_malformed(name: str):
    with pytest.raises(MalformedMessage):
        read(signed_form(notification_fields(**SIGNED_AND_UNREADABLE[name])))


def test_a_trace_of_january_belongs_to_the_new_year():
    fields = notification_fields(txnTime="20261231235959", traceTime="0101000003")
    about = read(signed_form(fields)).about
    assert isinstance(about, PaySnapshot)
    assert about.paid_at == datetime(2026, 12, 31, 16, 0, 3, tzinfo=UTC)


def test_whose_card_paid_is_not_kept():
    assert "6226" not in repr(read(GENUINE))


@given(st.binary())
def test_no_bytes_break_the_reading(raw: bytes):
    with pytest.raises((BadSignature, MalformedMessage)):
        read(raw)


@given(st.dictionaries(st.sampled_from(sorted(notification_fields())), st.text(), max_size=4))
def test_no_signed_value_breaks_the_reading(changed: dict[str, str]):
    try:
        event = read(signed_form(notification_fields(**changed)))
    except (BadSignature, MalformedMessage):
        return
    assert type(event.about.amount_minor) is int


@given(st.text(max_size=200))
def test_no_certificate_breaks_the_reading(brought: str):
    with pytest.raises((BadSignature, MalformedMessage)):
        read(signed_form(notification_fields(), brought=brought))


# One whose issuer can no longer be parsed.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@example(493, 73)
@given(st.integers(0, len(GENUINE) - 1), st.integers(0, 255))
def test_no_changed_byte_changes_what_is_read(place: int, byte: int):
    changed = GENUINE[:place] + bytes([byte]) + GENUINE[place + 1 :]
    try:
        event = read(changed)
    except (BadSignature, MalformedMessage):
        return
    assert event == read(GENUINE)


PEM_BODY: Final = pem(UNIONPAY).splitlines()[1:-1]
DER: Final = base64.b64decode("".join(PEM_BODY))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_no_changed_certificate_breaks_the_reading(place: int, byte: int):
    changed = DER[:place] + bytes([byte]) + DER[place + 1 :]
    text = base64.b64encode(changed).decode()
    brought = f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"
    if changed == DER:
        return
    with pytest.raises((BadSignature, MalformedMessage)):
        read(signed_form(notification_fields(), brought=brought))


def test_only_a_recorded_message_is_answered_200():
    assert acknowledgement(None).status == 200
    for refusal in Refusal:
        assert 400 <= acknowledgement(refusal).status < 600
