"""
The provider `unionpay`: one merchant of the all-channel platform, behind the port.

A payment on UnionPay's page is a signed form that the shopper's browser posts; in
an app it is a number (`tn`) that UnionPay's library takes. There is no call that
closes an unpaid payment: `payTimeout` does, and until then a failed try may be
followed by another.

What a call came to is decided in this order: no connection means not sent; a
lost connection, a time-out, any status but 200, anything unreadable and anything
that UnionPay did not sign mean unknown; only then the signed answer is read.

Source:
    docs/PAYMENTS.md §3; docs/decisions/0019-unionpay.md.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlencode

import structlog

from app.kernel.clock import Clock, instant
from app.kernel.errors import BadSignature
from app.payments.provider import (
    CAPTURED_STATES,
    Action,
    AttemptReference,
    ChargeRequest,
    FormAction,
    HttpReply,
    MalformedMessage,
    Outcome,
    ParamsAction,
    PaySnapshot,
    PayState,
    Product,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
    Refusal,
    Result,
    Verified,
)
from app.payments.providers.forms import read_form, refuse_folded
from app.payments.providers.http import Answer, Call, ProviderCalls
from app.payments.providers.unionpay import notifications
from app.payments.providers.unionpay.codes import (
    NOT_FOUND,
    concerns_account,
    is_known,
    outcome_of,
    refund_status_of,
    settled_state_of,
)
from app.payments.providers.unionpay.requests import (
    CHANNELS,
    Address,
    Kind,
    amount_mistake,
    charge_fields,
    query_fields,
    send_back_fields,
    with_identity,
)
from app.payments.providers.unionpay.settings import UnionpayAccount, credentials_of
from app.payments.providers.unionpay.signing import sign_fields, verify_fields
from app.payments.providers.unionpay.wire import (
    CURRENCY_CODES,
    from_compact,
    read_amount,
    read_answer,
    traced_at,
)

FORM_TYPE: Final = "application/x-www-form-urlencoded;charset=UTF-8"

Value = TypeVar("Value")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Told:
    """What one request came to; `fields` is what UnionPay signed, empty when nothing was."""

    outcome: Outcome
    code: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    raw: bytes = field(default=b"", repr=False)

    @property
    def is_not_found(self) -> bool:
        """Whether UnionPay signed that it knows of no such thing."""
        return self.outcome is Outcome.REJECTED and self.code == NOT_FOUND


class UnionpayProvider:
    """One merchant account at UnionPay."""

    code: Final = notifications.CODE
    products: Final = frozenset(CHANNELS)

    def __init__(
        self, account: UnionpayAccount, http: ProviderCalls, clock: Clock, callback_url: str
    ) -> None:
        self.account = account.merchant_account()
        self._document = account
        self._credentials = credentials_of(account)
        self._http = http
        self._clock = clock
        self._callback_url = callback_url

    async def create(self, charge: ChargeRequest) -> Result[Action]:
        """Open a payment: a signed form for the browser, or a number for the app."""
        if charge.product not in CHANNELS:
            return Result(Outcome.NOT_SENT, code="no_such_product", concerns_request=True)
        if mistake := amount_mistake(charge.amount_minor, charge.currency):
            return Result(Outcome.NOT_SENT, code=mistake, concerns_request=True)
        fields = charge_fields(charge, self._callback_url)
        if charge.product is not Product.APP:
            signed = await self._sign(fields)
            return Result(Outcome.CONFIRMED, FormAction(self._url(Address.FRONT), signed))
        told = await self._ask(Address.APP, fields)
        return self._read(told, charge.number, _number_for_the_app)

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]:
        """Ask about a payment; a failed try is no end before its time is up."""
        told = await self._ask(Address.QUERY, query_fields(attempt.number, attempt))
        if told.is_not_found:
            missing = PaySnapshot(number=attempt.number, state=PayState.NOT_FOUND)
            return Result(Outcome.CONFIRMED, missing, told.code, told.raw)
        return self._read(told, attempt.number, partial(self._payment, attempt))

    def _payment(self, attempt: AttemptReference, fields: Mapping[str, str]) -> PaySnapshot:
        state = settled_state_of(fields.get("origRespCode", ""), attempt, self._now())
        if state not in CAPTURED_STATES:
            return PaySnapshot(
                number=attempt.number, state=state, merchant_id=self.account.merchant_id
            )
        return PaySnapshot(
            number=attempt.number,
            state=state,
            merchant_id=self.account.merchant_id,
            provider_number=fields.get("queryId") or None,
            amount_minor=read_amount(fields.get("txnAmt", "")),
            currency=CURRENCY_CODES.get(fields.get("currencyCode", ""), ""),
            paid_at=traced_at(fields.get("traceTime", ""), from_compact(fields.get("txnTime", ""))),
        )

    async def close(self, attempt: AttemptReference) -> Result[None]:
        """Say that only a query tells: UnionPay has no such call, `payTimeout` closes."""
        del attempt
        return Result(Outcome.UNKNOWN, code="closes_by_itself")

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """Send money back, any part of it; accepted is not yet done."""
        return await self._send_back(Kind.REFUND, refund)

    async def undo(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        """
        Undo a whole payment on the day it was made, before it is cleared.

        A refund to the books, quicker for the payer and without a fee; a payment
        of an earlier day is refused.
        """
        if refund.amount_minor != refund.attempt.amount_minor:
            return Result(Outcome.NOT_SENT, code="undoes_all_or_nothing")
        return await self._send_back(Kind.UNDO, refund)

    async def _send_back(self, kind: Kind, refund: RefundRequest) -> Result[RefundSnapshot]:
        if mistake := amount_mistake(refund.amount_minor, refund.currency):
            return Result(Outcome.NOT_SENT, code=mistake)
        if not refund.attempt.provider_number:
            return Result(Outcome.NOT_SENT, code="no_provider_number")
        told = await self._ask(Address.BACK, send_back_fields(kind, refund, self._callback_url))
        build = partial(self._refund, refund, RefundStatus.PROCESSING)
        result = self._read(told, refund.number, build)
        if result.outcome is not Outcome.CONFIRMED:
            return result
        # It was accepted; that money went is told later.
        return Result(Outcome.PENDING, result.value, result.code, result.raw)

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        told = await self._ask(Address.QUERY, query_fields(refund.number, refund))
        if told.is_not_found:
            missing = RefundSnapshot(
                number=refund.number,
                attempt_number=refund.attempt.number,
                status=RefundStatus.NOT_FOUND,
            )
            return Result(Outcome.CONFIRMED, missing, told.code, told.raw)
        status = refund_status_of(told.fields.get("origRespCode", ""))
        return self._read(told, refund.number, partial(self._refund, refund, status))

    def _refund(
        self, refund: RefundRequest, status: RefundStatus, fields: Mapping[str, str]
    ) -> RefundSnapshot:
        return RefundSnapshot(
            number=refund.number,
            attempt_number=refund.attempt.number,
            status=status,
            merchant_id=self.account.merchant_id,
            provider_number=fields.get("queryId") or None,
            amount_minor=read_amount(fields.get("txnAmt", "")),
            currency=CURRENCY_CODES.get(fields.get("currencyCode", "156"), ""),
        )

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """Check and read one notification; see provider.Provider."""
        del headers  # the signature is in the form
        event = notifications.read_notification(raw, self._credentials.trust, self._now())
        return Verified(event, {}, notifications.kept_of(read_form(raw)))

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        """Answer 200, or a status that is not."""
        return notifications.acknowledgement(refusal)

    async def _ask(self, address: Address, fields: Mapping[str, str]) -> _Told:
        """Send one signed request and read its signed answer; never raises."""
        signed = await self._sign(fields)
        heard = await self._http.send(
            Call(
                method="POST",
                url=self._url(address),
                headers={"Content-Type": FORM_TYPE},
                body=urlencode(signed).encode(),
            )
        )
        if not isinstance(heard, Answer):
            return _Told(heard.outcome, heard.code)
        if heard.status != 200:
            return _Told(Outcome.UNKNOWN, f"status_{heard.status}")
        try:
            told = read_answer(heard.body)
            verify_fields(told, self._credentials.trust, self._now())
            refuse_folded(told, notifications.READ_FIELDS)
        except MalformedMessage:
            return _Told(Outcome.UNKNOWN, "unreadable")
        except BadSignature:
            return _Told(Outcome.UNKNOWN, "not_signed_by_unionpay")
        self._warn_of_unmapped(told)
        code = told.get("respCode", "")
        return _Told(outcome_of(code), code, told, notifications.kept_of(told))

    async def _sign(self, fields: Mapping[str, str]) -> dict[str, str]:
        known = self._credentials
        whole = with_identity(fields, self._document.merchant_id, known.certificate_id)
        return await asyncio.to_thread(sign_fields, known.private_key, whole)

    def _warn_of_unmapped(self, told: Mapping[str, str]) -> None:
        codes = {told.get("respCode", ""), told.get("origRespCode", "00")}
        for code in codes:
            if not is_known(code):
                _log.error(
                    "provider_word_unknown",
                    provider=self.code,
                    account=self.account.name,
                    code=code[:16],
                )

    def _read(
        self, told: _Told, number: str, build: Callable[[Mapping[str, str]], Value]
    ) -> Result[Value]:
        """Read a signed answer; one about something else is no answer at all."""
        if told.outcome is not Outcome.CONFIRMED:
            refused = told.outcome is Outcome.REJECTED
            return Result(
                told.outcome,
                code=told.code,
                raw=told.raw,
                concerns_account=refused and concerns_account(told.code),
            )
        named = (told.fields.get("orderId"), told.fields.get("merId"))
        if named != (number, self.account.merchant_id):
            return Result(Outcome.UNKNOWN, code="unreadable")
        try:
            value = build(told.fields)
        except ValueError:
            return Result(Outcome.UNKNOWN, code="unreadable")
        return Result(told.outcome, value, told.code, told.raw)

    def _url(self, address: Address) -> str:
        return f"{self._document.gateway_url.rstrip('/')}/{address}"

    def _now(self) -> datetime:
        return instant(self._clock.now_ms())


def open_provider(
    account: UnionpayAccount, http: ProviderCalls, clock: Clock, callback_url: str
) -> UnionpayProvider:
    """
    Open one merchant account.

    Args:
        account: as its document says; checked when it was read.
        http: open; outlives the provider.
        clock: of the process.
        callback_url: of our route for this account, as UnionPay reaches it.
    """
    return UnionpayProvider(account, http, clock, callback_url)


def _number_for_the_app(fields: Mapping[str, str]) -> Action:
    number = fields.get("tn", "")
    if not number:
        message = "no number for the app"
        raise ValueError(message)
    return ParamsAction({"tn": number})
