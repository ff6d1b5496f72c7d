"""
The provider `alipay`: one app of one merchant, behind the port of `payments.provider`.

A payment on Alipay's page, in a phone's browser or in an app is opened by the
shopper carrying a signed request there; Alipay hears of it only then. A code to
be scanned is asked for, and the payment exists only once somebody scanned it. So
"no such trade" means *not yet* until the attempt has expired.

Source:
    docs/PAYMENTS.md §2.3; docs/decisions/0018-alipay.md.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from types import TracebackType
from typing import Annotated, Final, Self, TypeVar
from urllib.parse import urlencode

import msgspec
import structlog

from app.kernel.clock import Clock, instant
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
    ParamsAction,
    PaySnapshot,
    PayState,
    QrAction,
    RedirectAction,
    RefundRequest,
    RefundSnapshot,
    Refusal,
    Result,
    TransferRequest,
    TransferSnapshot,
    TransferState,
    Verified,
)
from app.payments.providers.alipay import notifications
from app.payments.providers.alipay.bills import BILL_TYPES, read_bill
from app.payments.providers.alipay.charges import (
    METHODS,
    SUBJECT_LENGTH_MAX,
    amount_mistake,
    charge_content,
    charge_mistake,
)
from app.payments.providers.alipay.client import AlipayGateway, Content, Told
from app.payments.providers.alipay.outcomes import NO_BILL, NOT_FOUND, Method, business_word
from app.payments.providers.alipay.renewal import CertificateRenewal
from app.payments.providers.alipay.settings import AlipayAccount, credentials_of
from app.payments.providers.alipay.trades import (
    CancelAnswer,
    PrecreateAnswer,
    RefundAnswer,
    RefundQueryAnswer,
    TradeAnswer,
    missing_refund,
    read_refund,
    read_refund_query,
    read_trade,
    without_payer,
)
from app.payments.providers.alipay.transfers import (
    TransferAnswer,
    read_transfer,
    transfer_content,
    transfer_query_content,
)
from app.payments.providers.alipay.wire import BEIJING, to_yuan
from app.payments.providers.http import Answer, Call, ProviderCalls
from app.telemetry.reporter import LogReporter

BILL_READY_AT: Final = time(10, tzinfo=BEIJING)  # of the next day

Value = TypeVar("Value")

_log = structlog.get_logger(__name__)


class _BillAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a day's bill is, for 30 s."""

    bill_download_url: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]


class AlipayProvider:
    """
    One merchant account at Alipay.

    Use it as an async context: in certificate mode a task of its own then asks for a new
    certificate when a notification was signed by none that we know.
    """

    code: Final = notifications.CODE
    products: Final = frozenset(METHODS)

    def __init__(
        self, account: AlipayAccount, http: ProviderCalls, clock: Clock, callback_url: str
    ) -> None:
        credentials = credentials_of(account)
        self.account = account.merchant_account()
        self._document = account
        self._http = http
        self._clock = clock
        self._callback_url = callback_url
        self._may_pay_out = bool(credentials.request_serials)
        self._gateway = AlipayGateway(account, credentials, http, clock)
        self._renewal = CertificateRenewal(
            self._gateway.renew_certificate, account.certificate_refresh_pause_ms
        )
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._gateway.keys.by_serial:
            name = f"alipay_certificates:{self.account.name}"
            once = self._renewal.renew_and_rest
            # It ends by being cancelled: most of its time it waits for a doubt.
            loop = run_loop(name, once, asyncio.Event(), LogReporter(), Pace())
            self._renewing = asyncio.create_task(loop, name=name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing

    async def create(self, charge: ChargeRequest) -> Result[Action]:
        """Open a payment: a signed request for the shopper to carry, or a code to scan."""
        if mistake := charge_mistake(charge):
            return Result(Outcome.NOT_SENT, code=mistake, concerns_request=True)
        method = METHODS[charge.product]
        content = charge_content(method, charge, self._now())
        if method is Method.PRECREATE:
            told = await self._gateway.ask(method, content, notify_url=self._callback_url)
            return _read(told, PrecreateAnswer, partial(_code_to_scan, number=charge.number))
        parameters = await self._gateway.signed_parameters(
            method,
            content,
            notify_url=self._callback_url,
            return_url=charge.return_url or "",
        )
        carried = urlencode(parameters)
        if method is Method.APP_PAY:
            return Result(Outcome.CONFIRMED, ParamsAction({"order_string": carried}))
        url = f"{self._document.gateway_url}?{carried}"
        return Result(Outcome.CONFIRMED, RedirectAction(url))

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]:
        """Ask about a payment; "no such trade" is signed and means not yet, or never."""
        told = await self._gateway.ask(Method.QUERY, {"out_trade_no": attempt.number})
        if _is_word_of(told, NOT_FOUND):
            return _known(told, PaySnapshot(number=attempt.number, state=PayState.NOT_FOUND))
        if told.outcome is Outcome.PENDING:
            return _known(told, PaySnapshot(number=attempt.number, state=PayState.PAYING))
        return _read(told, TradeAnswer, partial(read_trade, attempt=attempt, account=self.account))

    async def close(self, attempt: AttemptReference) -> Result[None]:
        """
        End an unpaid trade.

        Signed refusals are UNKNOWN here: it may have been paid just now, or its
        code not yet been scanned, and only a query says which.
        """
        told = await self._gateway.ask(Method.CLOSE, {"out_trade_no": attempt.number})
        return Result(told.outcome, code=told.code, raw=told.content)

    async def cancel(self, attempt: AttemptReference) -> Result[CancelAnswer]:
        """
        Undo a trade whose end is unknown: unpaid it is closed, **paid it is refunded**.

        For a person at a till, not for the closer: money would go back without a
        refund of ours. `value.action` says `close` or `refund`; PENDING asks for a
        repetition.
        """
        told = await self._gateway.ask(Method.CANCEL, {"out_trade_no": attempt.number})
        result = _read(told, CancelAnswer, _itself)
        if result.value is not None and result.value.retry_flag == "Y":
            return Result(Outcome.PENDING, result.value, "retry", told.content)
        return result

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """Send money back; only `fund_change` Y says that it went, anything else is PENDING."""
        if mistake := amount_mistake(refund.amount_minor, refund.currency):
            return Result(Outcome.NOT_SENT, code=mistake)
        content = {
            "out_trade_no": refund.attempt.number,
            "out_request_no": refund.number,
            "refund_amount": to_yuan(refund.amount_minor),
            "refund_reason": refund.reason[:SUBJECT_LENGTH_MAX],
        }
        told = await self._gateway.ask(Method.REFUND, content)
        result = _read(
            told, RefundAnswer, partial(read_refund, refund=refund, account=self.account)
        )
        if result.outcome is Outcome.CONFIRMED and result.value is None:
            return Result(Outcome.PENDING, code="no_fund_change", raw=told.content)
        return result

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """Ask about a refund; an answer without a status means that there is none."""
        content = {"out_trade_no": refund.attempt.number, "out_request_no": refund.number}
        told = await self._gateway.ask(Method.REFUND_QUERY, content)
        if _is_word_of(told, NOT_FOUND):
            return _known(told, missing_refund(refund))
        return _read(
            told, RefundQueryAnswer, partial(read_refund_query, refund=refund, account=self.account)
        )

    async def transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]:
        """Send money to a person; certificate mode only."""
        if not self._may_pay_out:
            return Result(Outcome.NOT_SENT, code="needs_certificates")
        if mistake := amount_mistake(transfer.amount_minor, transfer.currency):
            return Result(Outcome.NOT_SENT, code=mistake)
        told = await self._gateway.ask(Method.TRANSFER, transfer_content(transfer))
        return self._read_transfer(told, transfer)

    async def query_transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]:
        content = transfer_query_content(transfer.number)
        told = await self._gateway.ask(Method.TRANSFER_QUERY, content)
        if _is_word_of(told, NOT_FOUND):
            missing = TransferSnapshot(number=transfer.number, state=TransferState.NOT_FOUND)
            return _known(told, missing)
        return self._read_transfer(told, transfer)

    def _read_transfer(self, told: Told, transfer: TransferRequest) -> Result[TransferSnapshot]:
        build = partial(read_transfer, transfer=transfer, account=self.account)
        return _read(told, TransferAnswer, build)

    async def bill(self, day: date, kind: BillKind) -> Result[Bill]:
        """Fetch one day's bill: ask for its address, and download it before that dies."""
        content = {"bill_type": BILL_TYPES[kind], "bill_date": day.isoformat()}
        told = await self._gateway.ask(Method.BILL, content)
        if _is_word_of(told, NO_BILL):
            return self._no_bill(told, day, kind)
        address = _read(told, _BillAnswer, _itself)
        if address.value is None:
            return Result(address.outcome, code=address.code, raw=address.raw)
        return await self._download_bill(address.value.bill_download_url, day, kind)

    async def _download_bill(self, url: str, day: date, kind: BillKind) -> Result[Bill]:
        heard = await self._http.fetch(
            Call(method="GET", url=url),
            hosts=self._document.bill_hosts,
            own_origins=[self._document.gateway_origin],
        )
        if not isinstance(heard, Answer):
            return Result(heard.outcome, code=heard.code)
        if heard.status != 200:
            return Result(Outcome.UNKNOWN, code=f"status_{heard.status}")
        try:
            bill = await asyncio.to_thread(read_bill, heard.body, kind, day)
        except MalformedMessage as error:
            _log.error("bill_unreadable", provider=self.code, day=day.isoformat(), why=str(error))
            return Result(Outcome.UNKNOWN, code="unreadable")
        return Result(Outcome.CONFIRMED, bill)

    def _no_bill(self, told: Told, day: date, kind: BillKind) -> Result[Bill]:
        """Until the next morning "no bill" means not yet; from then on, no money that day."""
        if self._now() < datetime.combine(day + timedelta(days=1), BILL_READY_AT):
            return Result(Outcome.PENDING, code=told.code)
        return _known(told, Bill(kind=kind, day=day, lines=(), raw=b""))

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """
        Check and read one notification; see provider.Provider.

        One that nobody we know has signed is refused, and lets us ask for a new certificate.
        """
        del headers  # the signature is in the form
        try:
            event = notifications.read_notification(raw, self._gateway.keys.all, self.account)
        except notifications.UnknownSigner:
            self._renewal.doubt()
            raise
        return Verified(event, {}, notifications.kept_of(raw))

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        """Answer `success` or `fail`."""
        return notifications.acknowledgement(refusal)

    def _now(self) -> datetime:
        return instant(self._clock.now_ms())


def open_provider(
    account: AlipayAccount, http: ProviderCalls, clock: Clock, callback_url: str
) -> AlipayProvider:
    """
    Open one merchant account.

    Args:
        account: as its document says; checked when it was read.
        http: open; outlives the provider.
        clock: of the process.
        callback_url: of our route for this account, as Alipay reaches it.
    """
    return AlipayProvider(account, http, clock, callback_url)


def _code_to_scan(answer: PrecreateAnswer, number: str) -> Action:
    if answer.out_trade_no != number:
        message = "an answer about another payment"
        raise ValueError(message)
    return QrAction(text=answer.qr_code, page=answer.qr_code)


def _itself(answer: Content) -> Content:
    return answer


def _is_word_of(told: Told, words: frozenset[str]) -> bool:
    """Whether it is a signed refusal, and one of these words."""
    if told.outcome is not Outcome.REJECTED or told.head is None:
        return False
    return business_word(told.head) in words


def _known(told: Told, value: Value) -> Result[Value]:
    """Take a signed answer without details for the state that it tells all the same."""
    outcome = Outcome.PENDING if told.outcome is Outcome.PENDING else Outcome.CONFIRMED
    return Result(outcome, value, told.code, told.content)


def _read(
    told: Told, type_: type[Content], build: Callable[[Content], Value | None]
) -> Result[Value]:
    """Read a signed answer; one about something else is no answer at all."""
    if told.outcome is not Outcome.CONFIRMED:
        return Result(
            told.outcome,
            code=told.code,
            raw=told.content,
            concerns_account=told.concerns_account,
        )
    try:
        value = build(told.read(type_))
    except ValueError:
        return Result(Outcome.UNKNOWN, code="unreadable")
    return Result(told.outcome, value, told.code, without_payer(told.content))
