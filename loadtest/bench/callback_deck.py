"""Callbacks, ready for the wire: written and signed by the sandbox gateway's own voices."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from app.payments.provider import PayState, Product
from app.sandbox.plain.voice import PlainVoice
from app.sandbox.records import Payment, Wire
from app.sandbox.voice import Seal, Voice
from app.sandbox.wechatpay.merchants import WechatpayMerchant, read_merchants
from app.sandbox.wechatpay.voice import WechatpayVoice
from app.wiring.stores import SANDBOX_KEY_ID
from loadtest.bench.payable import CURRENCY, PRICE_MINOR, PRODUCT

PATHS: Final = {Wire.PLAIN: "/v1/callbacks/sandbox", Wire.WECHATPAY: "/v1/callbacks/wechatpay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackDeck:
    """
    One callback for each payment, each of another order.

    Attributes:
        host: for the Host header.
        seal: what the gateway signs with: a shared secret, or a merchant's document (RSA).
        account: (merchant, app) as the provider names us.
        numbers: of the payments.
        first: how many payments the earlier shares have.
    """

    host: str
    seal: str | WechatpayMerchant
    account: tuple[str, str]
    numbers: tuple[str, ...]
    first: int = 0

    def part(self, index: int, parts: int) -> "CallbackDeck":
        """Give one of several generators its share; no payment is in two of them."""
        share = len(self.numbers) // parts
        begin = index * share
        return replace(self, numbers=self.numbers[begin : begin + share], first=self.first + begin)

    def requests(self) -> Iterator[bytes]:
        """Write and sign every callback now; give them in order."""
        now_ms = time.time_ns() // 1_000_000
        wire, voice = self._voice()
        made = [self._request(wire, voice, number, now_ms) for number in self.numbers]
        return iter(made)

    def _voice(self) -> tuple[Wire, Voice]:
        if isinstance(self.seal, str):
            keys = {SANDBOX_KEY_ID: self.seal.encode()}
            return Wire.PLAIN, PlainVoice(keys, page_of=lambda number: number)
        return Wire.WECHATPAY, WechatpayVoice(read_merchants([self.seal]))

    def _request(self, wire: Wire, voice: Voice, number: str, now_ms: int) -> bytes:
        payment = self._payment(wire, number, now_ms)
        callback = voice.payment_notice(payment, payment, now_ms)
        assert callback is not None, "a payment that is paid is told"
        posted = voice.dress(callback, now_ms, Seal.TRUE)
        headers = {
            "Host": self.host,
            "Content-Type": "application/json",
            "Content-Length": str(len(posted.body)),
            **{
                name: value
                for name, value in posted.headers.items()
                if name.lower() not in {"host", "content-type", "content-length"}
            },
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {PATHS[wire]} HTTP/1.1\r\n{head}\r\n".encode() + posted.body

    def _payment(self, wire: Wire, number: str, now_ms: int) -> Payment:
        merchant_id, app_id = self.account
        return Payment(
            wire=wire,
            number=number,
            merchant_id=merchant_id,
            app_id=app_id,
            product=Product(PRODUCT),
            amount_minor=PRICE_MINOR,
            currency=CURRENCY,
            description="bench",
            content="",
            created_at_ms=now_ms,
            expires_at_ms=now_ms + 3_600_000,
            callback_url=f"http://{self.host}{PATHS[wire]}",
            state=PayState.PAID,
            provider_number=f"42{number}",
            captured_minor=PRICE_MINOR,
            paid_at_ms=now_ms,
        )
