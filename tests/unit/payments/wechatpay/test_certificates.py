"""Which keys are believed, how they are renewed, and that nobody makes us ask in a storm."""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from app.kernel.clock import SystemClock
from app.kernel.errors import BadSignature
from app.payments.provider import Outcome
from app.payments.providers.http import ProviderCalls
from app.payments.providers.wechatpay.certificates import (
    CertificateAnswer,
    CertificateStore,
    UnknownSerial,
)
from app.payments.providers.wechatpay.provider import open_provider
from tests.fakes import FixedClock
from tests.unit.payments.wechatpay.gateway_server import Answer, Gateway, open_gateway
from tests.unit.payments.wechatpay.gateway_side import (
    API_KEY,
    NOW_SECONDS,
    OLD_API_KEY,
    PUBLIC_KEY_ID,
    TRANSACTION,
    account,
    certificate,
    certificate_pem,
    notification,
    seal,
    signed_headers,
)
from tests.unit.payments.wechatpay.test_provider import ATTEMPT
from tests.waiting import eventually

OLD: Final = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"
NEW: Final = "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C"
KEYS: Final = {OLD: "old", NEW: "new"}  # serial -> our name of its key
RAW: Final = notification(TRANSACTION)


def listed(*serials: str, key: str = API_KEY, pems: dict[str, bytes] | None = None) -> bytes:
    """The list of certificates as the gateway writes it."""
    entries = []
    for serial in serials:
        pem = (pems or {}).get(serial) or certificate_pem(KEYS[serial], int(serial, 16))
        sealed = seal(pem, "certificate", key)
        entries.append(
            {
                "serial_no": serial,
                "effective_time": "2026-06-08T10:34:56+08:00",
                "expire_time": "2031-06-08T10:34:56+08:00",
                "encrypt_certificate": sealed,
            }
        )
    return json.dumps({"data": entries}).encode()


def told(body: bytes, serial: str = OLD, key: str | None = None) -> CertificateAnswer:
    headers = signed_headers(body, key=key or KEYS.get(serial, "platform"), serial=serial)
    return CertificateAnswer(200, headers, body)


class Asking:
    """Answers with what it is given, and counts."""

    def __init__(self, answer: CertificateAnswer | None) -> None:
        self.answer = answer
        self.times = 0

    async def __call__(self) -> CertificateAnswer | None:
        self.times += 1
        return self.answer


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW_SECONDS * 1_000)


def store_of(clock: FixedClock, **changed: Any) -> CertificateStore:
    return CertificateStore(account(**{"platform_certificates": True} | changed), clock)


def without_public_key(clock: FixedClock) -> CertificateStore:
    return store_of(clock, platform_public_key=None, platform_public_key_id="")


def believes(store: CertificateStore, serial: str, key: str) -> bool:
    try:
        store.check(signed_headers(RAW, serial=serial, key=key), RAW)
    except BadSignature:
        return False
    return True


async def test_both_kinds_of_keys_are_believed_together(clock: FixedClock):
    store = store_of(clock)
    assert await store.refresh_once(Asking(told(listed(OLD, NEW))))
    assert believes(store, PUBLIC_KEY_ID, "platform")
    assert believes(store, OLD, "old")
    assert believes(store, NEW, "new")
    assert believes(store, NEW.lower(), "new")
    assert not believes(store, NEW, "old")
    assert not believes(store, OLD, "platform")
    assert not believes(store, PUBLIC_KEY_ID, "old")


async def test_the_first_download_needs_no_key_but_the_sealing_one(clock: FixedClock):
    store = without_public_key(clock)
    assert not believes(store, OLD, "old")
    assert await store.refresh_once(Asking(told(listed(OLD))))
    assert believes(store, OLD, "old")


async def test_a_list_sealed_with_the_key_before_this_one_is_read(clock: FixedClock):
    store = without_public_key(clock)
    assert await store.refresh_once(Asking(told(listed(OLD, key=OLD_API_KEY))))


REFUSED: Final = {
    "nobody answered": lambda: None,
    "an error": lambda: CertificateAnswer(404, {}, b'{"code":"RESOURCE_NOT_EXISTS"}'),
    "unsigned": lambda: CertificateAnswer(200, {}, listed(OLD, NEW)),
    "signed by a stranger": lambda: told(listed(OLD, NEW), key="stranger"),
    "signed by a key that is not in it": lambda: told(listed(OLD), serial=NEW, key="new"),
    "sealed with another key": lambda: told(listed(OLD, NEW, key="x" * 32)),
    "an empty list": lambda: told(b'{"data":[]}'),
    "no list": lambda: told(b"{}"),
    "no JSON": lambda: told(b"<html>"),
    "no certificate inside": lambda: told(listed(NEW, OLD, pems={NEW: b"hello"})),
    "another serial inside": lambda: told(listed(OLD, NEW, pems={NEW: certificate_pem("new", 77)})),
    "signed too long ago": lambda: CertificateAnswer(
        200,
        signed_headers(listed(OLD), key="old", serial=OLD, timestamp=str(NOW_SECONDS - 301)),
        listed(OLD),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_answer_that_fails_changes_nothing(clock: FixedClock, name: str):
    store = without_public_key(clock)
    assert await store.refresh_once(Asking(told(listed(OLD))))
    before = store.ring
    clock.advance(60_000)
    assert not await store.refresh_once(Asking(REFUSED[name]()))
    assert store.ring is before
    assert believes(store, OLD, "old")


async def test_a_new_list_replaces_the_ring_as_a_whole(clock: FixedClock):
    store = without_public_key(clock)
    await store.refresh_once(Asking(told(listed(OLD))))
    held = store.ring
    clock.advance(60_000)
    assert await store.refresh_once(Asking(told(listed(NEW), serial=OLD)))
    assert held.keys.keys() == {OLD}  # whoever still reads it sees it whole
    assert store.ring.keys.keys() == {NEW}


async def test_an_expired_certificate_is_not_believed(clock: FixedClock):
    store = without_public_key(clock)
    await store.refresh_once(Asking(told(listed(OLD))))
    until = certificate("old", int(OLD, 16), NOW_SECONDS - 86_400).not_valid_after_utc
    late = int(until.timestamp()) + 1
    clock.advance(late * 1_000 - clock.now_ms())
    with pytest.raises(UnknownSerial):
        store.check(signed_headers(RAW, serial=OLD, key="old", timestamp=str(late)), RAW)
    assert store.ring.for_encryption(clock.now_ms()) is None


async def test_unknown_serials_cause_no_storm(clock: FixedClock):
    store = store_of(clock)
    asking = Asking(told(listed(OLD)))
    forged = signed_headers(RAW, key="stranger")
    for n in range(1_000):
        with pytest.raises(UnknownSerial):
            store.check(forged | {"Wechatpay-Serial": f"PUB_KEY_ID_{n:010d}"}, RAW)
        await store.refresh_once(asking)
        clock.advance(50)  # 50 s in all
    assert asking.times == 1
    clock.advance(10_000)
    await store.refresh_once(asking)
    assert asking.times == 2


class JumpingClock:
    """Shows what it is told, also an earlier time."""

    def __init__(self, now_ms: int) -> None:
        self.shown_ms = now_ms

    def now_ms(self) -> int:
        return self.shown_ms


async def test_a_clock_set_back_does_not_stop_the_renewal():
    clock = JumpingClock(NOW_SECONDS * 1_000)
    store = CertificateStore(account(platform_certificates=True), clock)
    asking = Asking(None)
    await store.refresh_once(asking)
    clock.shown_ms -= 86_400_000
    await store.refresh_once(asking)
    assert asking.times == 2


async def test_public_key_mode_never_asks(clock: FixedClock):
    store = CertificateStore(account(), clock)
    asking = Asking(told(listed(OLD)))
    assert not believes(store, OLD, "old")
    assert not await store.refresh_once(asking)
    assert asking.times == 0


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


def certificate_mode(gateway: Gateway) -> Any:
    return account(
        platform_certificates=True,
        platform_public_key=None,
        platform_public_key_id="",
        base_url=gateway.url,
        backup_url="",
    )


def recent(*serials: str) -> bytes:
    """A list of certificates that hold at the machine's own time."""
    pems = {
        serial: certificate_pem(KEYS[serial], int(serial, 16), from_seconds=1_750_000_000)
        for serial in serials
    }
    return listed(*serials, pems=pems)


async def test_the_certificates_are_fetched_when_the_provider_opens(gateway: Gateway):
    gateway.say(Answer(body=recent(OLD), key="old", serial=OLD))
    forged = signed_headers(RAW, key="stranger", timestamp=str(int(time.time())))
    good = signed_headers(RAW, key="old", serial=OLD, timestamp=str(int(time.time())))
    async with (
        ProviderCalls() as calls,
        open_provider(
            certificate_mode(gateway), calls, SystemClock(), "https://shop.example/c"
        ) as provider,
    ):

        def is_believed() -> bool:
            with contextlib.suppress(BadSignature):
                return provider.parse_notification(good, RAW).raw == RAW
            return False

        await eventually(is_believed)
        for n in range(200):
            with pytest.raises(BadSignature):
                provider.parse_notification(forged | {"Wechatpay-Serial": f"{n:040d}"}, RAW)
        await provider.renew_keys()
    assert [one.target for one in gateway.heard] == ["/v3/certificates"]


async def test_an_answer_under_a_new_certificate_is_believed_once_it_is_fetched(gateway: Gateway):
    paid = json.dumps(TRANSACTION).encode()
    gateway.say(
        Answer(body=paid, key="new", serial=NEW),
        Answer(body=recent(NEW), key="new", serial=NEW),
        Answer(body=paid, key="stranger", serial="77" * 20),
    )
    async with ProviderCalls() as calls:
        provider = open_provider(
            certificate_mode(gateway), calls, SystemClock(), "https://shop.example/c"
        )
        assert (await provider.query(ATTEMPT)).outcome is Outcome.CONFIRMED
        for _ in range(5):
            assert (await provider.query(ATTEMPT)).outcome is Outcome.UNKNOWN
    asked = [one.target for one in gateway.heard if one.target == "/v3/certificates"]
    assert len(asked) == 1
