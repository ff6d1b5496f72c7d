"""
Broken messages for whatever reads what payment providers send, for as long as you like.

Each round takes a genuine message, breaks it a few times, and lets one reader have
it. What was broken after signing must be refused, or say what the genuine one says;
what was broken before signing must be refused, or be read as typed facts. Nothing
but our own two refusals may be raised.

A round is made from a seed and its own number alone, so that the two repeat it:
`make fuzz SEED=7 SECONDS=600`.
"""

import argparse
import itertools
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from app.kernel.errors import BadSignature, Untrusted
from app.payments.provider import MalformedMessage, Verified
from app.payments.providers.alipay.provider import open_provider as open_alipay
from app.payments.providers.alipay.response import read_envelope, verified_content
from app.payments.providers.http import ProviderCalls
from app.payments.providers.wechatpay.provider import open_provider as open_wechatpay
from tests.fakes import FixedClock
from tests.unit.payments.alipay import alipay_side
from tests.unit.payments.alipay.gateway import account as alipay_account
from tests.unit.payments.alipay.test_response import CONTENTS, METHOD
from tests.unit.payments.wechatpay import gateway_side

SECONDS: Final = 60.0
BREAKS_MAX: Final = 6

Bytes = bytes | bytearray
Reader = Callable[[random.Random], bool]
"""Plays one round; whether the broken message was taken. Raises what must not be raised."""

WECHATPAY: Final = open_wechatpay(
    gateway_side.account(),
    ProviderCalls(),
    FixedClock(gateway_side.NOW_SECONDS * 1_000),
    "https://shop.example/v1/callbacks/wechatpay",
)
ALIPAY: Final = open_alipay(
    alipay_account("https://openapi.alipay.com/gateway.do"),
    ProviderCalls(),
    FixedClock(alipay_side.NOW_MS),
    "https://shop.example/v1/callbacks/alipay",
)
ALIPAY_KEYS: Final = (alipay_side.key("alipay").public_key(),)

# What such messages are made of, and what has broken readers of them before.
TOKENS: Final = (
    b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0022", b"\\ud800", b":", b",", b"&", b"=", b"%",
    b"%00", b"%26total_amount=0.01", b"+", b"\0", b"\xff", b"\xe4\xb8\x80", b"null", b"true",
    b"1e999", b"-0", b"9" * 40, b"[" * 400, b'{"a":' * 200, b"0.010", b"NaN", b'"sign":"',
    b"_response", b"RSA2", b"RSA", b'"code":"10000"', b"TRADE_SUCCESS", b"SUCCESS", b"REFUND",
    b"2026-02-30 24:61:61", b"\r\n", b"9999-12-31T23:59:59-23:59",
)  # fmt: skip

TRANSFER: Final = {
    "app_id": alipay_side.APP_ID,
    "charset": "UTF-8",
    "sign_type": "RSA2",
    "msg_method": "alipay.fund.trans.order.changed",
    "notify_id": "n1",
    "utc_timestamp": str(alipay_side.NOW_MS),
    "biz_content": '{"out_biz_no":"T1","status":"SUCCESS","product_code":"TRANS_ACCOUNT_NO_PWD",'
    '"biz_scene":"DIRECT_TRANSFER","trans_amount":"1.00"}',
}
FORMS: Final[tuple[Mapping[str, str], ...]] = (
    alipay_side.notification_fields(),
    alipay_side.notification_fields(trade_status="TRADE_CLOSED", refund_fee="12.34"),
    alipay_side.notification_fields(biz_content="{}"),
    TRANSFER,
)
SIGNED_FORMS: Final = [alipay_side.signed_form(one) for one in FORMS]
SIGNED_ANSWERS: Final = [alipay_side.answer(METHOD, one) for one in CONTENTS]
RESOURCES: Final = [
    gateway_side.notification(gateway_side.TRANSACTION),
    gateway_side.notification(
        gateway_side.REFUND, event_type="REFUND.SUCCESS", original_type="refund"
    ),
]
HEADERS: Final = [gateway_side.signed_headers(one) for one in RESOURCES]


class Wrong(Exception):
    """A reader did what none may do; says what."""


class PassedUnsigned(Wrong):
    """Something else than what was signed passed under the signature."""


class Untyped(Wrong):
    """What was read is of another type than it says."""


def broken(chance: random.Random, genuine: Bytes) -> bytes:
    """Break a message 1..BREAKS_MAX times."""
    raw = bytearray(genuine)
    for _ in range(chance.randint(1, BREAKS_MAX)):
        at = chance.randrange(len(raw) + 1)
        until = min(len(raw), at + chance.choice((1, 1, 2, 4, 16, 64)))
        match chance.randrange(5):
            case 0:
                raw[at:until] = bytes(chance.randrange(256) for _ in range(until - at))
            case 1:
                del raw[at:until]
            case 2:
                raw[at:at] = raw[at:until]
            case 3:
                raw[at:until] = chance.choice(TOKENS)
            case _:
                raw[at:at] = chance.choice(TOKENS)
    return bytes(raw)


def _facts(verified: Verified) -> object:
    return verified.event


def _check_typed(verified: Verified) -> None:
    about = verified.event.about
    is_typed = type(about.amount_minor) is int and type(about.number) is str
    if not (is_typed and about.number):
        raise Untyped(repr(about))


def play_alipay_form(chance: random.Random) -> bool:
    """A notification that was broken on its way."""
    genuine = chance.choice(SIGNED_FORMS)
    raw = broken(chance, genuine)
    try:
        told = ALIPAY.parse_notification({}, raw)
    except Untrusted:
        return False
    if _facts(told) != _facts(ALIPAY.parse_notification({}, genuine)):
        raise PassedUnsigned(raw)
    return True


def play_signed_alipay_form(chance: random.Random) -> bool:
    """A notification that Alipay itself signed, and that nobody expects."""
    fields = dict(chance.choice(FORMS))
    for name in chance.sample(sorted(fields), chance.randint(1, 3)):
        told = broken(chance, fields.pop(name).encode()).decode("utf-8", "replace")
        fields[name if chance.random() < 0.9 else broken(chance, name.encode()).hex()] = told
    try:
        _check_typed(ALIPAY.parse_notification({}, alipay_side.signed_form(fields)))
    except Untrusted:
        return False
    return True


def play_alipay_answer(chance: random.Random) -> bool:
    """An answer of the gateway that was broken on its way."""
    content, genuine = chance.choice(list(zip(CONTENTS, SIGNED_ANSWERS, strict=True)))
    raw = broken(chance, genuine)
    try:
        told = verified_content(read_envelope(raw, METHOD), ALIPAY_KEYS)
    except (MalformedMessage, BadSignature):
        return False
    if told != content:
        raise PassedUnsigned(raw)
    return True


def play_signed_alipay_answer(chance: random.Random) -> bool:
    """An answer whose broken content was signed: what is cut out is what was signed, or nothing."""
    content = broken(chance, chance.choice(CONTENTS))
    raw = alipay_side.answer(METHOD, content)
    try:
        told = verified_content(read_envelope(raw, METHOD), ALIPAY_KEYS)
    except (MalformedMessage, BadSignature):
        return False
    if told != content.strip():
        raise PassedUnsigned(raw)
    return True


def play_wechatpay(chance: random.Random) -> bool:
    """A notification that was broken on its way, or whose headers were."""
    genuine, headers = chance.choice(list(zip(RESOURCES, HEADERS, strict=True)))
    told_headers, raw = dict(headers), genuine
    if chance.random() < 0.3:
        name = chance.choice(sorted(headers))
        told_headers[name] = broken(chance, headers[name].encode()).decode("latin-1")
    else:
        raw = broken(chance, genuine)
    try:
        told = WECHATPAY.parse_notification(told_headers, raw)
    except Untrusted:
        return False
    if _facts(told) != _facts(WECHATPAY.parse_notification(headers, genuine)):
        raise PassedUnsigned(raw)
    return True


def play_signed_wechatpay(chance: random.Random) -> bool:
    """A notification that was broken before WeChat Pay signed it."""
    raw = broken(chance, chance.choice(RESOURCES))
    return _take_wechatpay(raw)


def play_sealed_wechatpay(chance: random.Random) -> bool:
    """A notification whose secret part was broken before it was sealed."""
    document = chance.choice((gateway_side.TRANSACTION, gateway_side.REFUND))
    return _take_wechatpay(gateway_side.notification(broken(chance, _written(document))))


def _take_wechatpay(raw: bytes) -> bool:
    try:
        _check_typed(WECHATPAY.parse_notification(gateway_side.signed_headers(raw), raw))
    except Untrusted:
        return False
    return True


def _written(document: object) -> bytes:
    return gateway_side.json.dumps(document).encode()


READERS: Final[Mapping[str, Reader]] = {
    "alipay form": play_alipay_form,
    "alipay form, signed": play_signed_alipay_form,
    "alipay answer": play_alipay_answer,
    "alipay answer, signed": play_signed_alipay_answer,
    "wechatpay": play_wechatpay,
    "wechatpay, signed": play_signed_wechatpay,
    "wechatpay, sealed": play_sealed_wechatpay,
}


def play(seed: int, number: int) -> tuple[str, bool]:
    """
    Play one round.

    Raises:
        Wrong: or anything else: a reader failed; seed and number repeat it.
    """
    chance = random.Random(f"{seed}:{number}")  # noqa: S311  repeatable is what it must be
    name = tuple(READERS)[number % len(READERS)]
    return name, READERS[name](chance)


def _give_up(seed: int, number: int, error: Exception) -> NoReturn:
    name = tuple(READERS)[number % len(READERS)]
    sys.stderr.write(f"{name}: seed {seed} round {number}: {error!r}\n")
    raise error


def main() -> None:
    """Play until the time is up, and say what was played."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    told = parser.parse_args()
    ends, rounds, taken = time.monotonic() + told.seconds, Counter[str](), Counter[str]()
    for number in itertools.count():
        if time.monotonic() >= ends:
            break
        try:
            name, was_taken = play(told.seed, number)
        except Exception as error:  # noqa: BLE001  whatever a reader raises is what we look for
            _give_up(told.seed, number, error)
        rounds[name] += 1
        taken[name] += was_taken
    for name in READERS:
        sys.stdout.write(f"{name:22} {rounds[name]:9} rounds {taken[name]:8} taken\n")
    sys.stdout.write(f"seed {told.seed}: nothing but refusals and what was signed\n")


if __name__ == "__main__":
    main()
