"""Forged, mutated and foreign notifications: each has its answer, and none an effect."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import pytest

from app.kernel.errors import BadSignature
from app.kernel.ids import OrderKey
from app.payments.intent import Attempt, AttemptState, check_payment
from app.payments.provider import (
    Event,
    MalformedMessage,
    PaySnapshot,
    PayState,
    RefundSnapshot,
    RefundStatus,
    StaleMessage,
    TransferSnapshot,
    TransferState,
)
from app.payments.providers.http import ProviderCalls
from app.payments.providers.wechatpay.provider import open_provider
from tests.fakes import FixedClock
from tests.unit.payments.wechatpay.gateway_side import (
    APPID,
    MCHID,
    NOW_SECONDS,
    NUMBER,
    OLD_API_KEY,
    PUBLIC_KEY_ID,
    REFUND,
    REFUND_NUMBER,
    TRANSACTION,
    account,
    notification,
    seal,
    signature,
    signed_headers,
)

PROVIDER: Final = open_provider(
    account(),
    ProviderCalls(),
    FixedClock(NOW_SECONDS * 1_000),
    "https://shop.example/v1/callbacks/wechatpay",
)
THE_ATTEMPT: Final = Attempt(
    number=NUMBER,
    order_key=OrderKey(sale=1, bucket=0, epoch=1, seq=1),
    ordinal=1,
    idempotency_key="key",
    fingerprint=b"",
    provider="wechatpay",
    account="",
    product="native",
    amount_minor=100,
    currency="CNY",
    state=AttemptState.OPEN,
    action=None,
    provider_number=None,
    captured_minor=0,
    refunded_minor=0,
    expires_at=datetime(2027, 1, 15, 9, tzinfo=UTC),
    created_at=datetime(2027, 1, 15, 8, tzinfo=UTC),
    queries=0,
)
Message = tuple[dict[str, str], bytes]
GOOD: Final = notification(TRANSACTION)


def read(headers: dict[str, str], raw: bytes) -> Event:
    return PROVIDER.parse_notification(headers, raw).event


def answer(message: Message) -> str:
    """What becomes of a message: the refusal, or what comparing it with the attempt says."""
    try:
        about = read(*message).about
    except StaleMessage:
        return "stale"
    except BadSignature:
        return "bad_signature"
    except MalformedMessage:
        return "malformed"
    if not isinstance(about, PaySnapshot) or about.number != THE_ATTEMPT.number:
        return "unknown_number"
    return check_payment(THE_ATTEMPT, PROVIDER.account, PROVIDER.code, about).value


def signed(raw: bytes, **changed: str) -> Message:
    return signed_headers(raw, **changed), raw


def header(name: str, value: str) -> Message:
    """The good message with one header changed and the signature as it was."""
    return signed_headers(GOOD) | {name: value}, GOOD


def without(name: str) -> Message:
    kept = {one: value for one, value in signed_headers(GOOD).items() if one != name}
    return kept, GOOD


def body(raw: bytes) -> Message:
    """Another body under the signature of the good one."""
    return signed_headers(GOOD), raw


def paid(**changed: object) -> Message:
    """Signed by WeChat Pay, sealed with our key, and another payment inside."""
    return signed(notification(TRANSACTION | changed))


def amount(**changed: object) -> Message:
    return paid(amount=TRANSACTION["amount"] | changed)


def lacking(name: str) -> Message:
    kept = {one: value for one, value in TRANSACTION.items() if one != name}
    return signed(notification(kept))


def opened(text: bytes) -> Message:
    return signed(notification(text))


def sealed(**changed: object) -> Message:
    return signed(notification(TRANSACTION, sealed=changed))


def envelope(**changed: object) -> Message:
    return signed(notification(TRANSACTION, envelope=changed))


def at(seconds: int) -> Message:
    return signed(GOOD, timestamp=str(NOW_SECONDS + seconds))


def flipped(text: str, place: int) -> str:
    """Base64 of the same bytes with one bit changed."""
    raw = bytearray(base64.b64decode(text))
    raw[place] ^= 1
    return base64.b64encode(raw).decode()


SIGNATURE: Final = signed_headers(GOOD)["Wechatpay-Signature"]
SEALED: Final = seal(json.dumps(TRANSACTION).encode(), "transaction")
TWICE: Final = json.dumps(TRANSACTION)[:-1] + ',"out_trade_no":"' + NUMBER[:-1] + '2"}'

MESSAGES: Final[dict[str, Callable[[], Message]]] = {
    "as it should be": lambda: signed(GOOD),
    "the API key before this one": lambda: signed(notification(TRANSACTION, key=OLD_API_KEY)),
    "no algorithm named": lambda: without("Wechatpay-Signature-Type"),
    "no associated_data": lambda: signed(
        notification(
            TRANSACTION,
            sealed={**seal(json.dumps(TRANSACTION).encode(), None), "associated_data": None},
        )
    ),
    "empty associated_data": lambda: signed(
        notification(TRANSACTION, sealed=seal(json.dumps(TRANSACTION).encode(), ""))
    ),
    "fields we do not know": lambda: paid(news={"a": [1.5, None]}),
    "REFUND by now": lambda: paid(trade_state="REFUND"),
    # The signature.
    "no headers": lambda: ({}, GOOD),
    "no signature": lambda: without("Wechatpay-Signature"),
    "no serial": lambda: without("Wechatpay-Serial"),
    "no timestamp": lambda: without("Wechatpay-Timestamp"),
    "no nonce": lambda: without("Wechatpay-Nonce"),
    "empty signature": lambda: header("Wechatpay-Signature", ""),
    "a probe": lambda: header("Wechatpay-Signature", "WECHATPAY/SIGNTEST/" + SIGNATURE),
    "a probe as long as a signature": lambda: header(
        "Wechatpay-Signature", ("WECHATPAY/SIGNTEST/" + SIGNATURE)[: len(SIGNATURE)]
    ),
    "no base64": lambda: header("Wechatpay-Signature", "%%%"),
    "base64 with a newline": lambda: header("Wechatpay-Signature", SIGNATURE + "\n"),
    "base64 that is not canonical": lambda: header(
        "Wechatpay-Signature", SIGNATURE[:-3] + chr(ord(SIGNATURE[-3]) + 1) + "=="
    ),
    "one bit of the signature": lambda: header("Wechatpay-Signature", flipped(SIGNATURE, 7)),
    "half a signature": lambda: header("Wechatpay-Signature", SIGNATURE[:172]),
    "another key's signature": lambda: signed(GOOD, key="stranger"),
    "our own key's signature": lambda: signed(GOOD, key="merchant"),
    "the signature of another message": lambda: header(
        "Wechatpay-Signature", signed_headers(b"{}")["Wechatpay-Signature"]
    ),
    "another algorithm": lambda: header("Wechatpay-Signature-Type", "WECHATPAY2-SM2-WITH-SM3"),
    "an older algorithm": lambda: header("Wechatpay-Signature-Type", "SHA1-RSA2048"),
    "a doubled header": lambda: (
        signed_headers(GOOD) | {"wechatpay-serial": PUBLIC_KEY_ID},
        GOOD,
    ),
    # The serial.
    "an unknown key": lambda: header("Wechatpay-Serial", "PUB_KEY_ID_0000000000"),
    "an unknown certificate": lambda: header("Wechatpay-Serial", "5157F09EFDC096DE15EBE81A4705"),
    "the key's id in lower case": lambda: header("Wechatpay-Serial", PUBLIC_KEY_ID.lower()),
    "an empty serial": lambda: header("Wechatpay-Serial", ""),
    "a serial with a blank": lambda: header("Wechatpay-Serial", PUBLIC_KEY_ID + " "),
    "a very long serial": lambda: header("Wechatpay-Serial", "A" * 10_000),
    # The time and the nonce.
    "300 s old": lambda: at(-300),
    "301 s old": lambda: at(-301),
    "300 s ahead": lambda: at(300),
    "301 s ahead": lambda: at(301),
    "a day old": lambda: at(-86_400),
    "in the year zero": lambda: signed(GOOD, timestamp="0"),
    "a signed float": lambda: signed(GOOD, timestamp=f"{NOW_SECONDS}.0"),
    "a signed plus": lambda: signed(GOOD, timestamp=f"+{NOW_SECONDS}"),
    "signed milliseconds": lambda: signed(GOOD, timestamp=f"{NOW_SECONDS}000"),
    "signed blanks": lambda: signed(GOOD, timestamp=f" {NOW_SECONDS}"),
    "signed full-width digits": lambda: signed(GOOD, timestamp="\uff11" + str(NOW_SECONDS)[1:]),
    "a minute later under the old signature": lambda: header(
        "Wechatpay-Timestamp", str(NOW_SECONDS + 60)
    ),
    "another nonce": lambda: header("Wechatpay-Nonce", "another"),
    "an empty nonce": lambda: signed(GOOD, nonce=""),
    "a nonce of two lines": lambda: signed(GOOD, nonce="a\nb"),
    "a line of the body moved to the nonce": lambda: (
        signed_headers(b"x\n" + GOOD) | {"Wechatpay-Nonce": "5K8264ILTKCH16CQ2502SI8ZNMTM67VS\nx"},
        GOOD,
    ),
    # The body.
    "an empty body": lambda: body(b""),
    "one bit of the body": lambda: body(bytes([GOOD[0] ^ 1]) + GOOD[1:]),
    "a byte more": lambda: body(GOOD + b" "),
    "a byte less": lambda: body(GOOD[:-1]),
    "the same JSON written anew": lambda: body(json.dumps(json.loads(GOOD), indent=1).encode()),
    "too long": lambda: signed(GOOD + b" " * 65_536),
    "signed nothing": lambda: signed(b""),
    "signed null": lambda: signed(b"null"),
    "signed list": lambda: signed(b"[]"),
    "signed HTML": lambda: signed(b"<html></html>"),
    "signed XML of version 2": lambda: signed(b"<xml><return_code>SUCCESS</return_code></xml>"),
    "signed UTF-16": lambda: signed(GOOD.decode().encode("utf-16")),
    "signed GBK": lambda: signed(GOOD.decode().encode("gbk")),
    "signed with a byte order mark": lambda: signed(b"\xef\xbb\xbf" + GOOD),
    "signed and very deep": lambda: signed(b"[" * 60_000),
    "signed, two documents": lambda: signed(GOOD + GOOD),
    "signed, a key twice": lambda: signed(GOOD[:-1] + b',"id":"EV-2"}'),
    "signed, a key twice deeper": lambda: signed(
        GOOD.replace(b'"nonce"', b'"nonce": "fdasflkja484", "nonce"')
    ),
    "signed, no id": lambda: envelope(id=None),
    "signed, id of two lines": lambda: envelope(id="EV-1\nEV-2"),
    "signed, no time zone": lambda: envelope(create_time="2027-01-15T16:00:00"),
    "signed, in the year 1": lambda: envelope(create_time="0001-01-01T00:00:00+08:00"),
    # What it says it is.
    "another event": lambda: envelope(event_type="TRANSACTION.FAILED"),
    "an event of its own": lambda: envelope(event_type="COUPON.USE"),
    "a refund's event": lambda: envelope(event_type="REFUND.SUCCESS"),
    "a refund inside": lambda: signed(notification(REFUND)),
    "another kind of resource": lambda: envelope(resource_type="plain-resource"),
    "another original type": lambda: signed(notification(TRANSACTION, original_type="refund")),
    "no resource": lambda: envelope(resource=None),
    # The seal.
    "another cipher": lambda: sealed(algorithm="AEAD_AES_128_GCM"),
    "no cipher": lambda: sealed(algorithm="NONE"),
    "another API key": lambda: signed(notification(TRANSACTION, key="x" * 32)),
    "one bit of the ciphertext": lambda: sealed(ciphertext=flipped(SEALED["ciphertext"], 3)),
    "one bit of the tag": lambda: sealed(ciphertext=flipped(SEALED["ciphertext"], -1)),
    "no tag": lambda: sealed(ciphertext=SEALED["ciphertext"][:8]),
    "ciphertext that is no base64": lambda: sealed(ciphertext="***"),
    "an empty ciphertext": lambda: sealed(ciphertext=""),
    "another sealing nonce": lambda: sealed(nonce="fdasflkja485"),
    "a short sealing nonce": lambda: sealed(nonce="short"),
    "a sealing nonce of wide characters": lambda: sealed(nonce="付付付付付付付付付付付付"),
    "other associated_data": lambda: sealed(associated_data="refund"),
    "associated_data left out": lambda: sealed(associated_data=None),
    "associated_data that is a number": lambda: sealed(associated_data=1),
    # Inside.
    "inside: nothing": lambda: opened(b""),
    "inside: no JSON": lambda: opened(b"paid"),
    "inside: a list": lambda: opened(b"[]"),
    "inside: no UTF-8": lambda: opened(b"\xff\xfe"),
    "inside: a number twice": lambda: opened(TWICE.encode()),
    "inside: NaN": lambda: opened(json.dumps(TRANSACTION)[:-1].encode() + b',"x":NaN}'),
    "no amount": lambda: lacking("amount"),
    "no state": lambda: lacking("trade_state"),
    "no number": lambda: lacking("out_trade_no"),
    "not paid": lambda: paid(trade_state="NOTPAY"),
    "closed": lambda: paid(trade_state="CLOSED"),
    "a state of its own": lambda: paid(trade_state="PERHAPS"),
    "state in lower case": lambda: paid(trade_state="success"),
    "amount true": lambda: amount(total=True),
    "amount 100.0": lambda: amount(total=100.0),
    "amount in a string": lambda: amount(total="100"),
    "amount 1e2": lambda: opened(json.dumps(TRANSACTION).replace("100", "1e2", 1).encode()),
    "amount null": lambda: amount(total=None),
    "amount zero": lambda: amount(total=0),
    "amount negative": lambda: amount(total=-100),
    "amount too big for a row": lambda: amount(total=2**63),
    "amount of 5000 digits": lambda: opened(
        json.dumps(TRANSACTION).replace("100", "1" * 5_000, 1).encode()
    ),
    "one fen less": lambda: amount(total=99),
    "one fen more": lambda: amount(total=101),
    "one fen": lambda: amount(total=1),
    "what the payer paid, as the amount": lambda: amount(total=90, payer_total=100),
    "US dollars": lambda: amount(currency="USD"),
    "currency in lower case": lambda: amount(currency="cny"),
    "no currency": lambda: paid(amount={"total": 100}),
    "another merchant": lambda: paid(mchid="1900000110"),
    "no merchant": lambda: lacking("mchid"),
    "a merchant that is a number": lambda: paid(mchid=int(MCHID)),
    "another app": lambda: paid(appid="wx0000000000000000"),
    "our app in upper case": lambda: paid(appid=APPID.upper()),
    "no app": lambda: lacking("appid"),
    "no number of theirs": lambda: lacking("transaction_id"),
    "an attempt that is not ours": lambda: paid(out_trade_no=NUMBER[:-1] + "2"),
    "a number with a newline": lambda: paid(out_trade_no=NUMBER + "\n"),
    "a number with a zero byte": lambda: paid(out_trade_no=NUMBER + "\x00"),
    "a very long number": lambda: paid(out_trade_no="1" * 65),
    "paid in the year 9999": lambda: paid(success_time="9999-12-31T23:59:59+08:00"),
    "paid at no time zone": lambda: paid(success_time="2027-01-15T15:59:00"),
}

# What becomes of it, in the order of the checks.
ANSWERS: Final = """
as it should be                          accepted
the API key before this one              accepted
no algorithm named                       accepted
no associated_data                       accepted
empty associated_data                    accepted
fields we do not know                    accepted
REFUND by now                            accepted
no headers                               bad_signature
no signature                             bad_signature
no serial                                bad_signature
no timestamp                             bad_signature
no nonce                                 bad_signature
empty signature                          bad_signature
a probe                                  bad_signature
a probe as long as a signature           bad_signature
no base64                                bad_signature
base64 with a newline                    bad_signature
base64 that is not canonical             bad_signature
one bit of the signature                 bad_signature
half a signature                         bad_signature
another key's signature                  bad_signature
our own key's signature                  bad_signature
the signature of another message         bad_signature
another algorithm                        bad_signature
an older algorithm                       bad_signature
a doubled header                         bad_signature
an unknown key                           bad_signature
an unknown certificate                   bad_signature
the key's id in lower case               bad_signature
an empty serial                          bad_signature
a serial with a blank                    bad_signature
a very long serial                       bad_signature
300 s old                                accepted
301 s old                                stale
300 s ahead                              accepted
301 s ahead                              stale
a day old                                stale
in the year zero                         stale
a signed float                           bad_signature
a signed plus                            bad_signature
signed milliseconds                      bad_signature
signed blanks                            bad_signature
signed full-width digits                 bad_signature
a minute later under the old signature   bad_signature
another nonce                            bad_signature
an empty nonce                           bad_signature
a nonce of two lines                     bad_signature
a line of the body moved to the nonce    bad_signature
an empty body                            bad_signature
one bit of the body                      bad_signature
a byte more                              bad_signature
a byte less                              bad_signature
the same JSON written anew               bad_signature
too long                                 malformed
signed nothing                           malformed
signed null                              malformed
signed list                              malformed
signed HTML                              malformed
signed XML of version 2                  malformed
signed UTF-16                            malformed
signed GBK                               malformed
signed with a byte order mark            malformed
signed and very deep                     malformed
signed, two documents                    malformed
signed, a key twice                      malformed
signed, a key twice deeper               malformed
signed, no id                            malformed
signed, id of two lines                  malformed
signed, no time zone                     malformed
signed, in the year 1                    malformed
another event                            malformed
an event of its own                      malformed
a refund's event                         malformed
a refund inside                          malformed
another kind of resource                 malformed
another original type                    malformed
no resource                              malformed
another cipher                           malformed
no cipher                                malformed
another API key                          malformed
one bit of the ciphertext                malformed
one bit of the tag                       malformed
no tag                                   malformed
ciphertext that is no base64             malformed
an empty ciphertext                      malformed
another sealing nonce                    malformed
a short sealing nonce                    malformed
a sealing nonce of wide characters       malformed
other associated_data                    malformed
associated_data left out                 malformed
associated_data that is a number         malformed
inside: nothing                          malformed
inside: no JSON                          malformed
inside: a list                           malformed
inside: no UTF-8                         malformed
inside: a number twice                   malformed
inside: NaN                              malformed
no amount                                malformed
no state                                 malformed
no number                                malformed
not paid                                 malformed
closed                                   malformed
a state of its own                       malformed
state in lower case                      malformed
amount true                              malformed
amount 100.0                             malformed
amount in a string                       malformed
amount 1e2                               malformed
amount null                              malformed
amount zero                              malformed
amount negative                          malformed
amount too big for a row                 malformed
amount of 5000 digits                    malformed
one fen less                             amount_mismatch
one fen more                             amount_mismatch
one fen                                  amount_mismatch
what the payer paid, as the amount       amount_mismatch
US dollars                               currency_mismatch
currency in lower case                   malformed
no currency                              malformed
another merchant                         account_mismatch
no merchant                              malformed
a merchant that is a number              malformed
another app                              account_mismatch
our app in upper case                    account_mismatch
no app                                   malformed
no number of theirs                      account_mismatch
an attempt that is not ours              unknown_number
a number with a newline                  malformed
a number with a zero byte                malformed
a very long number                       malformed
paid in the year 9999                    malformed
paid at no time zone                     malformed
"""
ROWS: Final = [line.rsplit(maxsplit=1) for line in ANSWERS.strip().splitlines()]


def test_every_message_has_its_row():
    assert [name.strip() for name, _ in ROWS] == list(MESSAGES)


@pytest.mark.parametrize(("name", "expected"), ROWS)
def test_each_message_gets_its_answer(name: str, expected: str):
    assert answer(MESSAGES[name.strip()]()) == expected


def test_a_payment_is_read_without_its_payer():
    event = read(*signed(GOOD))
    assert event.notification_id == "EV-2018022511223320873"
    assert event.about == PaySnapshot(
        number=NUMBER,
        state=PayState.PAID,
        merchant_id=MCHID,
        app_id=APPID,
        provider_number="4200001234202611220000000001",
        amount_minor=100,
        currency="CNY",
        paid_at=event.about.paid_at,
    )
    assert "oUpF8uMuAJO" not in repr(PROVIDER.parse_notification(*signed(GOOD)))


# event, refund_status -> status
REFUNDS = """
REFUND.SUCCESS   SUCCESS     succeeded
REFUND.ABNORMAL  ABNORMAL    abnormal
REFUND.CLOSED    CLOSED      closed
REFUND.SUCCESS   PROCESSING  malformed
REFUND.SUCCESS   ABNORMAL    malformed
REFUND.CLOSED    SUCCESS     malformed
REFUND.SUCCESS   NEWS        malformed
"""


@pytest.mark.parametrize("row", REFUNDS.strip().splitlines())
def test_a_refund_is_what_both_its_event_and_its_status_say(row: str):
    event_type, status, expected = row.split()
    raw = notification(
        REFUND | {"refund_status": status}, event_type=event_type, original_type="refund"
    )
    if expected == "malformed":
        with pytest.raises(MalformedMessage):
            read(*signed(raw))
        return
    assert read(*signed(raw)).about == RefundSnapshot(
        number=REFUND_NUMBER,
        attempt_number=NUMBER,
        status=RefundStatus(expected),
        merchant_id=MCHID,
        provider_number="50200207182018070300011301001",
        amount_minor=100,
        currency="CNY",
    )


TRANSFER = {
    "mch_id": MCHID,
    "out_bill_no": "P20270115001",
    "transfer_bill_no": "1330000071100999991182020050700019480001",
    "transfer_amount": 2_000,
    "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o",
    "create_time": "2027-01-15T15:00:00+08:00",
    "update_time": "2027-01-15T15:59:00+08:00",
}
TRANSFERS = """
SUCCESS            succeeded
FAIL               failed
CANCELLED          cancelled
WAIT_USER_CONFIRM  malformed
NEWS               malformed
"""


@pytest.mark.parametrize("row", TRANSFERS.strip().splitlines())
def test_a_finished_transfer_is_told(row: str):
    state, expected = row.split()
    raw = notification(
        TRANSFER | {"state": state, "fail_reason": "ACCOUNT_FROZEN"},
        event_type="MCHTRANSFER.BILL.FINISHED",
        original_type="mch_payment",
    )
    if expected == "malformed":
        with pytest.raises(MalformedMessage):
            read(*signed(raw))
        return
    about = read(*signed(raw)).about
    assert isinstance(about, TransferSnapshot)
    assert (about.number, about.state) == ("P20270115001", TransferState(expected))
    assert (about.amount_minor, about.merchant_id) == (2_000, MCHID)
    assert about.failure == "ACCOUNT_FROZEN"


def test_the_signature_is_over_the_bytes_as_they_came():
    spaced = b"  " + GOOD.replace(b", ", b" ,\t") + b"\r\n"
    headers = signed_headers(spaced)
    assert headers["Wechatpay-Signature"] == signature(
        "platform", str(NOW_SECONDS), headers["Wechatpay-Nonce"], spaced
    )
    assert answer((headers, spaced)) == "accepted"
