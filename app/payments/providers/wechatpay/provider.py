"""
The provider `wechatpay`: one merchant account at WeChat Pay, on its real wire.

Joins the pure parts to the client. What a call came to is an `Outcome`; a code or
a state that no table knows is unknown, and logged as an error for a person.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.kernel.clock import Clock
from app.kernel.loop import Pace, run_loop
from app.payments.provider import (
    Action,
    AttemptReference,
    Bill,
    BillKind,
    ChargeRequest,
    HttpReply,
    MalformedMessage,
    Outcome,
    PaySnapshot,
    PayState,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
    Refusal,
    Result,
    TransferRequest,
    TransferSnapshot,
    TransferState,
    Verified,
)
from app.payments.providers.http import Lost, ProviderCalls
from app.payments.providers.wechatpay import faults, products, transfers
from app.payments.providers.wechatpay.bills import (
    FundAccount,
    UnreadableBill,
    bill_request,
    empty_bill,
    read_bill,
)
from app.payments.providers.wechatpay.certificates import CertificateStore
from app.payments.providers.wechatpay.client import Refused, Told, WechatpayClient
from app.payments.providers.wechatpay.faults import Meaning
from app.payments.providers.wechatpay.messages import (
    BatchBegun,
    BatchDetail,
    BillAddress,
    Refund,
    Transaction,
    Transfer,
    TransferBegun,
    read_document,
    without_person,
)
from app.payments.providers.wechatpay.notifications import (
    PROVIDER,
    check_size,
    read_notification,
)
from app.payments.providers.wechatpay.settings import PRODUCTS, TransferWay, WechatpayAccount
from app.payments.providers.wechatpay.snapshots import (
    CURRENCY,
    begun_transfer_snapshot,
    detail_snapshot,
    pay_snapshot,
    refund_snapshot,
    transfer_snapshot,
)
from app.telemetry.reporter import LogReporter

_log = structlog.get_logger(__name__)

Value = TypeVar("Value")
Document = TypeVar("Document", bound=msgspec.Struct)
AnySnapshot = TypeVar("AnySnapshot", PaySnapshot, RefundSnapshot, TransferSnapshot)

_ACK_STATUS: Final = {
    Refusal.BAD_SIGNATURE: 401,
    Refusal.STALE: 401,
    Refusal.MALFORMED: 400,
    Refusal.UNKNOWN_NUMBER: 404,
    Refusal.MISMATCH: 409,
    Refusal.UNAVAILABLE: 503,
}
_OUTCOMES: Final = {Meaning.REJECTED: Outcome.REJECTED, Meaning.DONE: Outcome.CONFIRMED}


class WechatpayProvider:
    """
    One merchant account at WeChat Pay.

    Use it as an async context where platform certificates are downloaded: a task
    of its own then renews them, and sooner when a message named an unknown one.
    """

    code: Final = PROVIDER
    products: Final = PRODUCTS

    def __init__(
        self, account: WechatpayAccount, http: ProviderCalls, clock: Clock, callback_url: str
    ) -> None:
        self.account = account.merchant_account()
        self._document = account
        self._clock = clock
        self._callback_url = callback_url
        self._certificates = CertificateStore(account, clock)
        self._client = WechatpayClient(account, http, self._certificates, clock)
        self._refresher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._document.platform_certificates:
            once = partial(
                self._certificates.refresh_and_rest,
                self._client.ask_certificates,
                self._document.certificate_refresh_ms,
            )
            name = f"wechatpay_certificates:{self.account.name}"
            # It ends by being cancelled: most of its time it waits for a serial it does not know.
            loop = run_loop(name, once, asyncio.Event(), LogReporter(), Pace())
            self._refresher = asyncio.create_task(loop, name=name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refresher

    async def create(self, charge: ChargeRequest) -> Result[Action]:
        """Open a payment; see provider.Provider."""
        mistake = products.charge_mistake(charge)
        if mistake is not None:
            return Result(Outcome.NOT_SENT, code=mistake, concerns_request=True)
        request = products.charge_request(self._document, charge, self._callback_url)
        reply = await self._client.ask(request)
        if not isinstance(reply, Told):
            return self._unanswered(reply, faults.CREATE)
        # In a thread: what the wallet is handed is signed.
        return await asyncio.to_thread(self._read_action, charge, reply)

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]:
        """Ask how a payment stands; see provider.Provider."""
        reply = await self._client.ask(products.query_request(self._document, attempt))
        if isinstance(reply, Told):
            told = self._read_told(
                reply, Transaction, lambda one: pay_snapshot(one, self._document)
            )
            return self._about(attempt.number, told)
        missing = PaySnapshot(number=attempt.number, state=PayState.NOT_FOUND)
        return self._unanswered(reply, faults.QUERY, missing)

    async def close(self, attempt: AttemptReference) -> Result[None]:
        """Let nobody pay it any more; see provider.Provider."""
        reply = await self._client.ask(products.close_request(self._document, attempt))
        if isinstance(reply, Told):
            return Result(Outcome.CONFIRMED)
        return self._unanswered(reply, faults.CLOSE)

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """Send money back; an answer means that it was accepted, its status says more."""
        if refund.currency != CURRENCY or refund.amount_minor < 1:
            return Result(Outcome.NOT_SENT, code="currency_or_amount")
        reply = await self._client.ask(products.refund_request(refund, self._callback_url))
        if isinstance(reply, Told):
            return self._about_refund(refund, reply)
        return self._unanswered(reply, faults.REFUND)

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """Ask how a refund stands; see provider.Provider."""
        reply = await self._client.ask(products.query_refund_request(refund))
        if isinstance(reply, Told):
            return self._about_refund(refund, reply)
        missing = RefundSnapshot(
            number=refund.number,
            attempt_number=refund.attempt.number,
            status=RefundStatus.NOT_FOUND,
        )
        return self._unanswered(reply, faults.QUERY_REFUND, missing)

    async def transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]:
        """Send money to a person: single, or a batch of one; see provider.PaysOut."""
        if self._document.transfer_way is TransferWay.BATCH:
            sent = await self.transfer_batch(transfer.number, [transfer])
            if sent.value is None:
                return Result(sent.outcome, code=sent.code)
            return Result(sent.outcome, sent.value[0], sent.code, sent.raw)
        mistake = transfers.transfer_mistake(self._document, transfer)
        sealing = self._sealing([transfer])
        if mistake is not None or sealing is None:
            return Result(Outcome.NOT_SENT, code=mistake or "no_key_to_encrypt_with")
        serial, key = sealing
        reply = await self._client.ask(
            transfers.single_request(self._document, transfer, self._callback_url, key), serial
        )
        if not isinstance(reply, Told):
            return self._unanswered(reply, faults.TRANSFER)
        told = self._read_told(
            reply,
            TransferBegun,
            lambda one: begun_transfer_snapshot(one, self._document, transfer.amount_minor),
        )
        return self._about(transfer.number, told)

    async def transfer_batch(
        self, number: str, several: Sequence[TransferRequest]
    ) -> Result[tuple[TransferSnapshot, ...]]:
        """
        Send money to several persons under one number, for merchants who may.

        Args:
            number: of the batch; repeating it with the same transfers is one batch.
            several: 1..1000.
        """
        if not 1 <= len(several) <= transfers.BATCH_TRANSFERS_MAX:
            return Result(Outcome.NOT_SENT, code="batch_size")
        found = (transfers.transfer_mistake(self._document, one) for one in several)
        mistake = next((one for one in found if one is not None), None)
        sealing = self._sealing(several)
        if mistake is not None or sealing is None:
            return Result(Outcome.NOT_SENT, code=mistake or "no_key_to_encrypt_with")
        serial, key = sealing
        request = await asyncio.to_thread(
            transfers.batch_request, self._document, number, several, self._callback_url, key
        )
        reply = await self._client.ask(request, serial)
        if not isinstance(reply, Told):
            return self._unanswered(reply, faults.TRANSFER)
        return self._read_told(
            reply, BatchBegun, lambda one: self._begun_batch(one, number, several)
        )

    async def query_transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]:
        """Ask how a transfer stands; see provider.PaysOut."""
        number = transfer.number
        if self._document.transfer_way is TransferWay.BATCH:
            return await self.query_batch_transfer(number, number)
        reply = await self._client.ask(transfers.query_single_request(number))
        if isinstance(reply, Told):
            return self._about(number, self._read_told(reply, Transfer, transfer_snapshot))
        return self._unanswered(reply, faults.QUERY_TRANSFER, _missing_transfer(number))

    async def query_batch_transfer(
        self, batch_number: str, number: str
    ) -> Result[TransferSnapshot]:
        """Ask how one transfer of a batch stands."""
        reply = await self._client.ask(transfers.query_detail_request(batch_number, number))
        if isinstance(reply, Told):
            told = self._read_told(
                reply, BatchDetail, lambda one: detail_snapshot(one, self._document)
            )
            return self._about(number, told)
        return self._unanswered(reply, faults.QUERY_TRANSFER, _missing_transfer(number))

    async def bill(self, day: date, kind: BillKind) -> Result[Bill]:
        """Fetch one day's bill; see provider.TellsBills."""
        return await self._bill(day, kind, FundAccount.BASIC)

    async def fund_bill(self, day: date, account: FundAccount) -> Result[Bill]:
        """Fetch what moved on one of the merchant's accounts on a day."""
        return await self._bill(day, BillKind.FUND, account)

    async def renew_keys(self) -> None:
        """Fetch the platform certificates, at most once a minute; on any trouble the known stay."""
        await self._certificates.refresh_once(self._client.ask_certificates)

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """Check and read one callback; see provider.Provider."""
        check_size(raw)
        self._certificates.check(headers, raw)
        return read_notification(self._document, self._document.api_keys, headers, raw)

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        """Answer 204, or a status that makes WeChat Pay repeat it."""
        if refusal is None:
            return HttpReply(204, "application/json", b"")
        body = msgspec.json.encode({"code": "FAIL", "message": refusal.value})
        return HttpReply(_ACK_STATUS[refusal], "application/json", body)

    def _read_action(self, charge: ChargeRequest, told: Told) -> Result[Action]:
        timestamp, nonce = str(self._clock.now_ms() // 1000), secrets.token_hex(16)
        try:
            action = products.read_action(self._document, charge, told.body, timestamp, nonce)
        except MalformedMessage as error:
            return self._unreadable(error)
        return Result(Outcome.CONFIRMED, action, raw=told.body)

    async def _bill(self, day: date, kind: BillKind, account: FundAccount) -> Result[Bill]:
        reply = await self._client.ask(bill_request(day, kind, account))
        if not isinstance(reply, Told):
            return self._no_bill(reply, day, kind)
        told = self._read_told(reply, BillAddress, lambda address: address)
        if told.value is None:
            return Result(told.outcome, code=told.code)
        if told.value.hash_type != "SHA1":
            return Result(Outcome.UNKNOWN, code="hash_type")
        heard = await self._client.download(told.value.download_url)
        if isinstance(heard, Lost) or heard.status != 200:
            code = heard.code if isinstance(heard, Lost) else f"status_{heard.status}"
            return Result(Outcome.UNKNOWN, code=code)
        try:
            bill = await asyncio.to_thread(read_bill, kind, day, heard.body, told.value.hash_value)
        except UnreadableBill as error:
            self._alarm("wechatpay_bill_unreadable", why=str(error), day=day.isoformat(), kind=kind)
            return Result(Outcome.UNKNOWN, code="bill_unreadable")
        return Result(Outcome.CONFIRMED, bill)

    def _no_bill(self, reply: Refused | Lost, day: date, kind: BillKind) -> Result[Bill]:
        meaning = None if isinstance(reply, Lost) else faults.BILL.get(reply.code)
        if meaning is Meaning.NOTHING:
            return Result(Outcome.CONFIRMED, empty_bill(kind, day))
        if meaning is Meaning.LATER:
            assert isinstance(reply, Refused)
            return Result(Outcome.PENDING, code=reply.code)
        return self._unanswered(reply, faults.BILL)

    def _unanswered(
        self,
        reply: Refused | Lost,
        table: Mapping[str, Meaning],
        missing: Value | None = None,
    ) -> Result[Value]:
        """Say what a refusal, or no answer, comes to; `missing` when there is no such thing."""
        if isinstance(reply, Lost):
            return Result(reply.outcome, code=reply.code)
        meaning = table.get(reply.code)
        if meaning is None or reply.code in faults.ALARMING:
            self._alarm("wechatpay_refused", code=reply.code, known=meaning is not None)
        if meaning is Meaning.NOT_FOUND and missing is not None:
            return Result(Outcome.CONFIRMED, missing, reply.code)
        outcome = Outcome.UNKNOWN if meaning is None else _OUTCOMES.get(meaning, Outcome.UNKNOWN)
        if outcome is Outcome.REJECTED and reply.is_repeat:
            # The first sending may have been sound, or have done it: that one may stand.
            return Result(Outcome.UNKNOWN, code=reply.code)
        concerns_account = outcome is Outcome.REJECTED and reply.code in faults.ACCOUNT
        return Result(outcome, code=reply.code, concerns_account=concerns_account)

    def _read_told(
        self, told: Told, type_: type[Document], turn: Callable[[Document], Value]
    ) -> Result[Value]:
        """Read a signed answer; one that we cannot read leaves the outcome unknown."""
        try:
            value = turn(read_document(told.body, type_))
            return Result(Outcome.CONFIRMED, value, raw=without_person(told.body))
        except MalformedMessage as error:
            return self._unreadable(error)

    def _unreadable(self, error: MalformedMessage) -> Result[Any]:
        self._alarm("wechatpay_unreadable", why=str(error))
        return Result(Outcome.UNKNOWN, code="unreadable")

    def _about_refund(self, refund: RefundRequest, told: Told) -> Result[RefundSnapshot]:
        read = self._read_told(told, Refund, lambda one: refund_snapshot(one, self._document.mchid))
        return self._about(refund.number, read)

    def _about(self, number: str, told: Result[AnySnapshot]) -> Result[AnySnapshot]:
        """Take an answer about another number for no answer; tell somebody of a new word."""
        snapshot = told.value
        if snapshot is None:
            return told
        if snapshot.number != number:
            self._alarm("wechatpay_other_number", asked=number)
            return Result(Outcome.UNKNOWN, code="other_number")
        state = snapshot.status if isinstance(snapshot, RefundSnapshot) else snapshot.state
        if state in (PayState.UNKNOWN, RefundStatus.UNKNOWN, TransferState.UNKNOWN):
            self._alarm("wechatpay_word_unknown", number=number)
        return told

    def _begun_batch(
        self, begun: BatchBegun, number: str, several: Sequence[TransferRequest]
    ) -> tuple[TransferSnapshot, ...]:
        """Say of each transfer of an accepted batch that its end comes later."""
        if begun.out_batch_no != number:
            raise MalformedMessage(why="it is about another batch")
        return tuple(
            TransferSnapshot(
                number=one.number,
                state=TransferState.PROCESSING,
                merchant_id=self.account.merchant_id,
                app_id=self.account.app_id,
                amount_minor=one.amount_minor,
                currency=one.currency,
            )
            for one in several
        )

    def _sealing(
        self, several: Sequence[TransferRequest]
    ) -> tuple[str, RSAPublicKey | None] | None:
        """Return the key that names are encrypted with, if any is sent; None: there is none."""
        if not any(transfers.needs_encryption(one) for one in several):
            return "", None
        return self._certificates.ring.for_encryption(self._clock.now_ms())

    def _alarm(self, event: str, **told: object) -> None:
        _log.error(event, account=self.account.name, **told)


def open_provider(
    account: WechatpayAccount, http: ProviderCalls, clock: Clock, callback_url: str
) -> WechatpayProvider:
    """
    Open one merchant account.

    Args:
        account: as its document says; checked when it was read.
        http: open; outlives the provider.
        clock: of the process.
        callback_url: of our route for this account, as WeChat Pay reaches it: https,
            without a query.
    """
    return WechatpayProvider(account, http, clock, callback_url)


def _missing_transfer(number: str) -> TransferSnapshot:
    return TransferSnapshot(number=number, state=TransferState.NOT_FOUND)
