"""
Ask WeChat Pay, and believe only what it signed.

Every request is signed anew, also when it is repeated: once on the backup host
when the network failed, once when the answer was 202. What comes back is decided
in this order: no answer, a status that says nothing (5xx, 429, redirects), a
signature that does not hold, and only then the body.

Source:
    docs/PAYMENTS.md §1.1, §1.2, §1.3 and §1.9.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog

from app.kernel.clock import Clock
from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage, Outcome, StaleMessage
from app.payments.providers.http import (
    Answer,
    Call,
    Heard,
    Lost,
    ProviderCalls,
    outcome_of_status,
)
from app.payments.providers.wechatpay.certificates import (
    CERTIFICATES_PATH,
    CertificateAnswer,
    CertificateStore,
    UnknownSerial,
    Unsigned,
)
from app.payments.providers.wechatpay.messages import Fault, read_document
from app.payments.providers.wechatpay.settings import WECHATPAY_HOSTS, WechatpayAccount
from app.payments.providers.wechatpay.signing import SERIAL_HEADER, Request, authorization

_log = structlog.get_logger(__name__)

ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Told:
    """A signed success; the body is empty where there is nothing to say."""

    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A signed refusal, by its code."""

    code: str
    # The same request had gone out before: this refuses the repeat and says nothing of the first.
    is_repeat: bool = False


Reply: TypeAlias = Told | Refused | Lost


class WechatpayClient:
    """The requests of one merchant account."""

    def __init__(
        self,
        account: WechatpayAccount,
        calls: ProviderCalls,
        certificates: CertificateStore,
        clock: Clock,
    ) -> None:
        self._account = account
        self._merchant = account.merchant
        self._calls = calls
        self._certificates = certificates
        self._clock = clock

    async def ask(self, request: Request, encrypted_for: str = "") -> Reply:
        """
        Send one request and read its answer as far as its signature reaches.

        Args:
            request: may be sent twice; its number makes the two one.
            encrypted_for: the serial of the key that its fields are encrypted with.
        """
        heard, is_repeat = await self._send(request, encrypted_for)
        if isinstance(heard, Answer) and heard.status == ACCEPTED:
            (heard, _), is_repeat = await self._send(request, encrypted_for), True
        if isinstance(heard, Lost):
            # That the repeat was not sent says nothing of what went out before it.
            return Lost(Outcome.UNKNOWN, heard.code) if is_repeat else heard
        unbelieved = await self._doubt(heard)
        if unbelieved is not None:
            _log.warning(
                "wechatpay_answer_unbelieved",
                account=self._account.name,
                status=heard.status,
                why=unbelieved,
                hint=_fault_code(heard.body),
            )
            return Lost(Outcome.UNKNOWN, unbelieved)
        if heard.status < 300:
            return Told(heard.body)
        return Refused(_fault_code(heard.body), is_repeat)

    async def download(self, url: str) -> Heard:
        """Fetch a bill's file from the address we were told; signed by us, not by them."""
        path = url.split("/", 3)[3:]
        request = Request("GET", f"/{path[0] if path else ''}")
        headers = await self._headers(request, "")
        return await self._calls.fetch(
            Call(method="GET", url=url, headers=headers),
            hosts=WECHATPAY_HOSTS,
            own_origins=self._hosts(),
        )

    async def ask_certificates(self) -> CertificateAnswer | None:
        """Ask for the platform certificates; whoever reads the answer checks it."""
        heard, _ = await self._send(Request("GET", CERTIFICATES_PATH), "")
        if isinstance(heard, Lost):
            return None
        return CertificateAnswer(heard.status, heard.headers, heard.body)

    async def _send(self, request: Request, encrypted_for: str) -> tuple[Heard, bool]:
        """
        Try the host, and the backup host after a network error; each try is signed anew.

        Returns:
            What was heard last, and whether an earlier try may have been heard too.
        """
        heard: Heard = Lost(Outcome.NOT_SENT, "no_host")
        maybe_sent = False
        for host in self._hosts():
            heard = await self._calls.send(
                Call(
                    method=request.method,
                    url=f"{host}{request.target}",
                    headers=await self._headers(request, encrypted_for),
                    body=request.body,
                    answer_ms=self._account.answer_timeout_ms,
                )
            )
            if isinstance(heard, Answer):
                return heard, maybe_sent
            maybe_sent = maybe_sent or heard.outcome is Outcome.UNKNOWN
        assert isinstance(heard, Lost)
        return (Lost(Outcome.UNKNOWN, heard.code) if maybe_sent else heard), maybe_sent

    def _hosts(self) -> list[str]:
        return [host for host in (self._account.base_url, self._account.backup_url) if host]

    async def _headers(self, request: Request, encrypted_for: str) -> Mapping[str, str]:
        timestamp = str(self._clock.now_ms() // 1000)
        nonce = secrets.token_hex(16)
        # Signing takes the processor for 0.3 ms, outside the interpreter's lock.
        signed = await asyncio.to_thread(authorization, self._merchant, request, timestamp, nonce)
        headers = {
            "Authorization": signed,
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # the signature is of the bytes as they come
        }
        # Which key fields are encrypted with, or which kind of signature we would like.
        serial = encrypted_for or self._account.platform_public_key_id
        return {**headers, SERIAL_HEADER: serial} if serial else headers

    async def _doubt(self, answer: Answer) -> str | None:
        """Say why an answer is not believed; None: it is WeChat Pay's and says something."""
        if outcome_of_status(answer.status) is not None or answer.status == ACCEPTED:
            return f"status_{answer.status}"
        try:
            await self._check(answer)
        except Unsigned:
            return "unsigned"
        except BadSignature:
            return "bad_signature"
        except StaleMessage:
            return "stale"
        return None

    async def _check(self, answer: Answer) -> None:
        try:
            self._certificates.check(answer.headers, answer.body)
        except UnknownSerial:
            # Its key may be new. At most once a minute somebody asks, so most give up here.
            if not await self._certificates.refresh_once(self.ask_certificates):
                raise
            self._certificates.check(answer.headers, answer.body)


def _fault_code(body: bytes) -> str:
    """Read the code of a refusal; empty when there is none to be read."""
    try:
        return read_document(body, Fault).code
    except MalformedMessage:
        return ""
