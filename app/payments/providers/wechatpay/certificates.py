"""
With which keys WeChat Pay's messages are checked, and how they are renewed.

The ring of keys is read by every check and replaced as a whole: never changed,
never emptied first. An unknown serial refuses its message and marks the ring as
out of date; the gateway is asked at most once a minute, however many messages
name serials that nobody has.

BadSignature             (kernel.errors)
├── Unsigned             no signature at all: most refusals carry none
└── UnknownSerial        signed, it says, with a key we do not hold

Source:
    docs/PAYMENTS.md §1.4.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.kernel.clock import Clock, unix_ms
from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage, StaleMessage
from app.payments.providers.keys import RSA_BITS_MIN
from app.payments.providers.wechatpay.messages import (
    CertificateEntry,
    CertificateList,
    open_sealed,
    read_document,
)
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.payments.providers.wechatpay.signing import check_seal, read_seal, serial_name

_log = structlog.get_logger(__name__)

REFRESH_GAP_MS: Final = 60_000
CERTIFICATES_PATH: Final = "/v3/certificates"
_FOR_EVER_MS: Final = 2**63 - 1


class Unsigned(BadSignature):
    """The message carries no signature."""


class UnknownSerial(BadSignature):
    """The message names a key that we do not hold."""


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """One key of WeChat Pay's and the Unix milliseconds between which it holds."""

    key: RSAPublicKey = field(repr=False)
    from_ms: int = 0
    until_ms: int = _FOR_EVER_MS

    def holds_at(self, now_ms: int) -> bool:
        return self.from_ms <= now_ms <= self.until_ms


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every key that may have signed a message, by serial; never changed."""

    keys: Mapping[str, PlatformKey] = field(repr=False)

    def check(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
        """
        Check that WeChat Pay signed these bytes, and lately; no I/O.

        Raises:
            Unsigned, UnknownSerial, BadSignature, StaleMessage: believe nothing in it.
        """
        seal = read_seal(headers)
        if seal is None:
            raise Unsigned
        known = self.keys.get(seal.serial)
        if known is None or not known.holds_at(now_ms):
            raise UnknownSerial(serial=seal.serial)
        check_seal(seal, known.key, body, now_ms // 1000)

    def for_encryption(self, now_ms: int) -> tuple[str, RSAPublicKey] | None:
        """Return serial and key to encrypt for WeChat Pay with: the one that holds longest."""
        holding = [(name, key) for name, key in self.keys.items() if key.holds_at(now_ms)]
        if not holding:
            return None
        name, longest = max(holding, key=lambda item: item[1].until_ms)
        return name, longest.key


@dataclass(frozen=True, slots=True)
class CertificateAnswer:
    """The gateway's answer to the question for its certificates, not yet checked."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Ask: TypeAlias = Callable[[], Awaitable[CertificateAnswer | None]]


class CertificateStore:
    """The ring of one account: the configured public key and what was downloaded."""

    def __init__(self, account: WechatpayAccount, clock: Clock) -> None:
        self._api_keys = account.api_keys
        self._configured = {name: PlatformKey(key) for name, key in account.platform_keys.items()}
        self._clock = clock
        self._downloads = account.platform_certificates
        self._asked_ms: int | None = None
        self._out_of_date = asyncio.Event()
        self.ring = KeyRing(MappingProxyType(self._configured))

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check one message as KeyRing.check does; an unknown serial asks for a refresh, later."""
        try:
            self.ring.check(headers, body, self._clock.now_ms())
        except UnknownSerial:
            self._out_of_date.set()
            raise

    async def refresh_once(self, ask: Ask) -> bool:
        """
        Ask for the certificates, unless that was done in the last minute.

        Args:
            ask: sends the signed question; None when nobody answered.

        Returns:
            Whether the ring was replaced. It is left alone by an answer that fails
            in any way.
        """
        if not self._downloads or self._wait_ms() > 0:
            return False
        self._asked_ms = self._clock.now_ms()  # before the call: others must not start one too
        self._out_of_date.clear()
        answer = await ask()
        if answer is None or answer.status != 200:
            _log.warning("certificates_not_told", status=None if answer is None else answer.status)
            return False
        try:
            self.ring = self._checked_ring(answer)
        except (BadSignature, StaleMessage, MalformedMessage) as error:
            _log.error("certificates_refused", error=str(error))
            return False
        _log.info("certificates_renewed", serials=sorted(self.ring.keys))
        return True

    async def refresh_and_rest(self, ask: Ask, period_ms: int) -> int:
        """
        Refresh, then rest for `period_ms`, or less when a serial was unknown: one pass of a loop.

        Returns:
            1, always: the rest is part of the pass.
        """
        await self.refresh_once(ask)
        # With a key in hand there is time: a serial it does not fit cuts the pause short.
        pause_ms = period_ms if self.ring.keys else REFRESH_GAP_MS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_ms / 1000):
                await self._out_of_date.wait()
        await asyncio.sleep(self._wait_ms() / 1000)
        return 1

    def _wait_ms(self) -> int:
        """Say how long nobody may ask again; a clock that was set back does not prolong it."""
        if self._asked_ms is None:
            return 0
        passed_ms = self._clock.now_ms() - self._asked_ms
        return max(0, REFRESH_GAP_MS - passed_ms) if passed_ms >= 0 else 0

    def _checked_ring(self, answer: CertificateAnswer) -> KeyRing:
        """
        Read the ring out of an answer that one of its own keys, or of ours, signed.

        The first download has no key to be checked with. What carries it is the
        API v3 key: only WeChat Pay and we can seal with it.
        """
        listed = read_document(answer.body, CertificateList).data
        keys = {**self._configured, **_read_entries(listed, self._api_keys)}
        KeyRing({**self.ring.keys, **keys}).check(answer.headers, answer.body, self._clock.now_ms())
        return KeyRing(MappingProxyType(keys))


def _read_entries(
    entries: Sequence[CertificateEntry], api_keys: Sequence[bytes]
) -> dict[str, PlatformKey]:
    keys = {}
    for entry in entries:
        certificate = _read_certificate(open_sealed(entry.encrypt_certificate, api_keys))
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < RSA_BITS_MIN:
            raise MalformedMessage(why="a platform certificate has a weak key")
        if certificate.serial_number != int(entry.serial_no, 16):
            raise MalformedMessage(why="a platform certificate has another serial")
        keys[serial_name(entry.serial_no)] = PlatformKey(
            key,
            unix_ms(certificate.not_valid_before_utc),
            unix_ms(certificate.not_valid_after_utc),
        )
    return keys


def _read_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise MalformedMessage(why="a platform certificate is none") from error
