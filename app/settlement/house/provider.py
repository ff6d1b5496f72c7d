"""
The house as a provider: `offline`, `transfer` and `balance` behind the one port.

What a gateway keeps on its own machines stands here in house_payments and
house_refunds: whoever comes first, the payer or the closer, wins there, and the
enquiry carries the answer to the order whatever process dies in between. A call
that the database did not answer is unknown and may be repeated.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from app.kernel.clock import Clock, instant
from app.kernel.errors import BadSignature, Unavailable
from app.kernel.failpoints import failpoint
from app.payments.provider import (
    Action,
    AttemptReference,
    ChargeRequest,
    HttpReply,
    MerchantAccount,
    NoAction,
    Outcome,
    ParamsAction,
    PaySnapshot,
    PayState,
    Product,
    Provider,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
    Refusal,
    Result,
    Verified,
)
from app.settlement.house import store
from app.settlement.house.rules import (
    BALANCE,
    OFFLINE,
    TRANSFER,
    HousePayment,
    PaymentState,
    remittance_code,
)
from app.storage.shards import Connection, Database

HOUSE: Final = MerchantAccount("", "house", "house")

_STATES: Final = {
    PaymentState.OPEN: PayState.NOT_PAID,
    PaymentState.PAID: PayState.PAID,
    PaymentState.CLOSED: PayState.CLOSED,
}


class HouseProvider(ABC):
    """What the three have in common; each says how it opens and how it pays back."""

    code: str
    products: Final = frozenset({Product.DIRECT})
    account: Final = HOUSE

    def __init__(self, ledger: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def create(self, charge: ChargeRequest) -> Result[Action]:
        wanted = self._payment(charge.number, charge.amount_minor, charge.currency)
        try:
            async with self._ledger.transaction() as connection:
                payment = await store.insert_payment(connection, wanted)
                if payment.state is PaymentState.CLOSED:
                    return Result(Outcome.REJECTED, code="closed")
                opened = await self._open(connection, payment, charge)
            failpoint("house.after_open")
        except Unavailable:
            return Result(Outcome.UNKNOWN)
        return opened

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]:
        try:
            async with self._ledger.connection() as connection:
                payment = await store.read_payment(connection, attempt.number)
        except Unavailable:
            return Result(Outcome.UNKNOWN)
        if payment is None:
            missing = PaySnapshot(number=attempt.number, state=PayState.NOT_FOUND)
            return Result(Outcome.CONFIRMED, missing)
        return Result(Outcome.CONFIRMED, pay_snapshot(payment))

    async def close(self, attempt: AttemptReference) -> Result[None]:
        payment = self._payment(attempt.number, attempt.amount_minor, attempt.currency)
        try:
            async with self._ledger.transaction() as connection:
                await store.close_payment(connection, payment)
        except Unavailable:
            return Result(Outcome.UNKNOWN)
        return Result(Outcome.CONFIRMED)

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        try:
            async with self._ledger.transaction() as connection:
                row = await store.insert_refund(
                    connection,
                    refund.number,
                    refund.attempt.number,
                    refund.amount_minor,
                    refund.currency,
                )
                if not row.is_settled:
                    await self._pay_back(connection, row)
                row = await store.lock_refund(connection, refund.number) or row
        except Unavailable:
            return Result(Outcome.UNKNOWN)
        outcome = Outcome.CONFIRMED if row.is_settled else Outcome.PENDING
        return Result(outcome, refund_snapshot(row))

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        try:
            async with self._ledger.connection() as connection:
                row = await store.read_refund(connection, refund.number)
        except Unavailable:
            return Result(Outcome.UNKNOWN)
        if row is None:
            missing = RefundSnapshot(
                number=refund.number,
                attempt_number=refund.attempt.number,
                status=RefundStatus.NOT_FOUND,
            )
            return Result(Outcome.CONFIRMED, missing)
        return Result(Outcome.CONFIRMED, refund_snapshot(row))

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """Refuse every callback: the house tells itself nothing by HTTP."""
        del headers, raw
        raise BadSignature(provider=self.code, why="the house sends no callbacks")

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        status = 503 if refusal is Refusal.UNAVAILABLE else 401
        return HttpReply(status, "text/plain", b"refused")

    def _payment(self, number: str, amount_minor: int, currency: str) -> HousePayment:
        return HousePayment(
            number=number,
            provider=self.code,
            amount_minor=amount_minor,
            currency=currency,
            state=PaymentState.OPEN,
            remittance_code=remittance_code(number) if self.code == TRANSFER else None,
        )

    @abstractmethod
    async def _open(
        self, connection: Connection, payment: HousePayment, charge: ChargeRequest
    ) -> Result[Action]:
        """Say how a payment that is not closed is paid; its row is locked."""

    async def _pay_back(self, connection: Connection, refund: store.HouseRefund) -> None:  # noqa: B027  what most of them do
        """Leave it to an operator, who says when the money went and by what proof."""


class OfflineProvider(HouseProvider):
    """Cash, cheque, terminal: an operator confirms it with proof."""

    code = OFFLINE

    async def _open(
        self, connection: Connection, payment: HousePayment, charge: ChargeRequest
    ) -> Result[Action]:
        del connection, charge
        amount = {"amount_minor": str(payment.amount_minor), "currency": payment.currency}
        params = {"payment_id": payment.number, **amount}
        return Result(Outcome.CONFIRMED, ParamsAction(params))


class TransferProvider(HouseProvider):
    """A bank transfer that names its payment by a code."""

    code = TRANSFER

    def __init__(self, ledger: Database, clock: Clock, bank_account: str) -> None:
        super().__init__(ledger, clock)
        self._bank_account = bank_account

    async def _open(
        self, connection: Connection, payment: HousePayment, charge: ChargeRequest
    ) -> Result[Action]:
        del connection, charge
        assert payment.remittance_code is not None
        params = {
            "remittance_code": payment.remittance_code,
            "bank_account": self._bank_account,
            "amount_minor": str(payment.amount_minor),
            "currency": payment.currency,
        }
        return Result(Outcome.CONFIRMED, ParamsAction(params))


class BalanceProvider(HouseProvider):
    """Money that the shopper has put in before; the call itself takes it."""

    code = BALANCE

    async def _open(
        self, connection: Connection, payment: HousePayment, charge: ChargeRequest
    ) -> Result[Action]:
        if payment.state is PaymentState.OPEN:
            now = instant(self._clock.now_ms())
            if not await store.spend(connection, charge.shopper, payment, now):
                await store.close_payment(connection, payment)
                return Result(Outcome.REJECTED, code="balance_insufficient", lacks_funds=True)
        return Result(Outcome.CONFIRMED, NoAction())

    async def _pay_back(self, connection: Connection, refund: store.HouseRefund) -> None:
        await store.give_back(connection, refund)


def pay_snapshot(payment: HousePayment) -> PaySnapshot:
    """Say what the house knows of a payment, as any provider would."""
    return PaySnapshot(
        number=payment.number,
        state=_STATES[payment.state],
        merchant_id=HOUSE.merchant_id,
        app_id=HOUSE.app_id,
        provider_number=payment.reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        paid_at=payment.paid_at,
    )


def refund_snapshot(refund: store.HouseRefund) -> RefundSnapshot:
    """Say what the house knows of a refund, as any provider would."""
    return RefundSnapshot(
        number=refund.number,
        attempt_number=refund.payment_number,
        status=RefundStatus.SUCCEEDED if refund.is_settled else RefundStatus.PROCESSING,
        merchant_id=HOUSE.merchant_id,
        provider_number=refund.reference,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )


def open_house(ledger: Database, clock: Clock, bank_account: str) -> list[Provider]:
    """Return the ways to pay of the house; by transfer only if there is a bank account."""
    house: list[Provider] = [OfflineProvider(ledger, clock), BalanceProvider(ledger, clock)]
    if bank_account:
        house.append(TransferProvider(ledger, clock, bank_account))
    return house
