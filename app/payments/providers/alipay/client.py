"""
One question to Alipay's gateway: sign, send, verify, judge.

What a call came to is decided in this order: no connection means not sent; a
lost connection, a time-out, any status but 200, anything that is no answer to
the question and anything unsigned mean unknown; only then the signed answer is
read.

In certificate mode an answer may name a certificate of Alipay's that we have not
seen. It is downloaded, at most once in a minute, and believed only when it has
the serial we asked for, chains to the root we were given, and names the same
subject as a certificate we were given: merchants' certificates chain to the same
root.

Source:
    docs/PAYMENTS.md §2.1 and §2.2; docs/decisions/0018-alipay.md.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
import structlog
from cryptography import x509

from app.kernel.clock import Clock, instant
from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage, Outcome
from app.payments.providers.alipay.outcomes import AnswerHead, Judgement, Method, judge
from app.payments.providers.alipay.response import Envelope, read_envelope, verified_content
from app.payments.providers.alipay.settings import AlipayAccount, Credentials
from app.payments.providers.alipay.signing import (
    SIGN_TYPE,
    AlipayKeys,
    certificate_serial,
    sign_request,
)
from app.payments.providers.alipay.wire import to_beijing
from app.payments.providers.chains import UNPARSABLE, is_issued_by, rsa_key
from app.payments.providers.http import Answer, Call, Lost, ProviderCalls
from app.payments.providers.keys import read_certificate

FORM_TYPE: Final = "application/x-www-form-urlencoded;charset=utf-8"

Content = TypeVar("Content", bound=msgspec.Struct)

_log = structlog.get_logger(__name__)


class _CertificateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.open.app.alipaycert.download: base64 of PEM."""

    alipay_cert_content: str


@dataclass(frozen=True, slots=True)
class Told:
    """What one question came to; `content` is what Alipay signed, empty when nothing was."""

    outcome: Outcome
    code: str = ""
    content: bytes = field(default=b"", repr=False)
    head: AnswerHead | None = None
    concerns_account: bool = False  # see provider.Result

    def read(self, type_: type[Content]) -> Content:
        """
        Decode the signed content.

        Raises:
            ValueError: it is not of this type.
        """
        try:
            return msgspec.json.decode(self.content, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = "the answer lacks what it must tell"
            raise ValueError(message) from error


class AlipayGateway:
    """Alipay's gateway as one app knows it."""

    def __init__(
        self, account: AlipayAccount, credentials: Credentials, http: ProviderCalls, clock: Clock
    ) -> None:
        self._account = account
        self._credentials = credentials
        self._http = http
        self._clock = clock
        self._keys = credentials.keys
        self._refreshing = asyncio.Lock()
        self._refreshed_ms: int | None = None

    @property
    def keys(self) -> AlipayKeys:
        """Whose signatures are Alipay's at this moment."""
        return self._keys

    async def signed_parameters(
        self, method: Method, content: Mapping[str, object], **extra: str
    ) -> dict[str, str]:
        """
        Return all parameters of a request, signed; also what a browser or a wallet carries.

        Args:
            method: what is asked.
            content: of `biz_content`.
            extra: further parameters, such as notify_url; empty ones are left out.
        """
        parameters = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": SIGN_TYPE,
            "timestamp": to_beijing(instant(self._clock.now_ms())),
            "version": "1.0",
            **self._credentials.request_serials,
            **extra,
            "biz_content": msgspec.json.encode(content).decode(),
        }
        return await asyncio.to_thread(sign_request, self._credentials.private_key, parameters)

    async def ask(self, method: Method, content: Mapping[str, object], **extra: str) -> Told:
        """Put one question; never raises for what the network or the gateway does."""
        heard = await self._send(method, content, **extra)
        if isinstance(heard, Told):
            return heard
        keys = self._keys.named(heard.certificate_serial)
        if not keys and heard.certificate_serial is not None:
            await self._learn_certificate(heard.certificate_serial)
            keys = self._keys.named(heard.certificate_serial)
        try:
            signed = verified_content(heard, keys)
            head = msgspec.json.decode(signed, type=AnswerHead)
        except BadSignature:
            return Told(Outcome.UNKNOWN, _unsigned_code(heard))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Told(Outcome.UNKNOWN, "unreadable")
        judged = judge(method, head)
        self._warn_of_unmapped(method, judged)
        return Told(judged.outcome, judged.code, signed, head, judged.concerns_account)

    async def renew_certificate(self) -> bool:
        """
        Learn the certificate that Alipay signs with now, if it is a new one.

        Every answer names its certificate, also the one to this question for a certificate that
        we hold. Of the answer only that name is used: what is then downloaded is believed under
        the rules for any new certificate.

        Returns:
            Whether an answer came.
        """
        heard = await self._send(Method.CERTIFICATE, {"alipay_cert_sn": self._keys.newest_serial})
        if isinstance(heard, Told):
            return False
        if heard.certificate_serial is not None:
            await self._learn_certificate(heard.certificate_serial)
        return True

    async def _send(
        self, method: Method, content: Mapping[str, object], **extra: str
    ) -> Envelope | Told:
        parameters = await self.signed_parameters(method, content, **extra)
        body = urlencode({"biz_content": parameters.pop("biz_content")}).encode()
        call = Call(
            method="POST",
            url=f"{self._account.gateway_url}?{urlencode(parameters)}",
            headers={"Content-Type": FORM_TYPE},
            body=body,
        )
        match await self._http.send(call):
            case Lost(outcome, code):
                return Told(outcome, code)
            case Answer(status=200, body=raw):
                try:
                    return read_envelope(raw, method)
                except MalformedMessage:
                    return Told(Outcome.UNKNOWN, "unreadable")
            case Answer(status=status):
                return Told(Outcome.UNKNOWN, f"status_{status}")

    def _warn_of_unmapped(self, method: Method, judged: Judgement) -> None:
        if judged.is_unmapped:
            _log.error(
                "provider_word_unknown",
                provider="alipay",
                account=self._account.name,
                method=method,
                code=judged.code[:64],
            )

    async def _learn_certificate(self, serial: str) -> None:
        """Download an unknown certificate, unless one was just asked for."""
        async with self._refreshing:
            now_ms = self._clock.now_ms()
            pause_ms = self._account.certificate_refresh_pause_ms
            last_ms = self._refreshed_ms
            # A clock that was set back does not prolong the pause.
            is_pausing = last_ms is not None and 0 <= now_ms - last_ms < pause_ms
            if is_pausing or self._keys.named(serial):
                return
            self._refreshed_ms = now_ms
            certificate = await self._download_certificate(serial)
            if certificate is None:
                _log.error("alipay_certificate_refused", account=self._account.name)
                return
            self._keys = self._keys.with_certificate(serial, rsa_key(certificate))
            _log.info("alipay_certificate_learnt", account=self._account.name, serial=serial)

    async def _download_certificate(self, serial: str) -> x509.Certificate | None:
        heard = await self._send(Method.CERTIFICATE, {"alipay_cert_sn": serial})
        if isinstance(heard, Told):
            return None
        try:
            told = msgspec.json.decode(heard.content, type=_CertificateAnswer)
            pem = base64.b64decode(told.alipay_cert_content, validate=True)
            leaf, *authorities = read_certificate(pem.decode("ascii")).chain
            return leaf if self._is_alipays(leaf, authorities, serial) else None
        except (msgspec.DecodeError, binascii.Error, *UNPARSABLE):
            return None

    def _is_alipays(
        self, leaf: x509.Certificate, authorities: list[x509.Certificate], serial: str
    ) -> bool:
        known = self._credentials
        rsa_key(leaf)
        return (
            certificate_serial(leaf) == serial
            and any(leaf.subject == one.subject for one in known.certificates)
            and is_issued_by(
                leaf,
                known.roots,
                (*known.authorities, *authorities),
                instant(self._clock.now_ms()),
            )
        )


def _unsigned_code(heard: Envelope) -> str:
    """Say why an answer is not believed, with its own words for people to read."""
    if heard.signature is not None:
        return "bad_signature"
    try:
        head = msgspec.json.decode(heard.content, type=AnswerHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unsigned"
    words = f"unsigned {head.code}/{head.sub_code or ''}"
    return words[:96] if words.isprintable() else "unsigned"
