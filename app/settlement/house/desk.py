"""
What operators do at the house: confirm by proof, pay back by hand, top balances up.

Each act, its transfers and its audit row are one transaction beside the books. What
follows for the order is told to its shard afterwards; a crash in between leaves it
to the enquiry and to the refund sender, which ask the same rows.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import msgspec
import structlog

from app.kernel.errors import Unavailable
from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.payments.expiry import ask_about
from app.payments.intent import AttemptNumber
from app.payments.provider import Event, Verified
from app.payments.refunds import apply_refund
from app.payments.stage import PaymentStage
from app.payments.store import read_attempt
from app.sales.store import Act, note_act
from app.settlement.house import line_store, store
from app.settlement.house.provider import refund_snapshot
from app.settlement.house.rules import (
    BALANCE,
    OFFLINE,
    TRANSFER,
    Movement,
    PaymentState,
    post_paid_back,
)
from app.settlement.store import post_transfers
from app.storage.shards import Connection, Database

TOP_UP: Final = "top_up"
Answer = TypeVar("Answer")

_log = structlog.get_logger(__name__)


class HouseRefusal(StrEnum):
    """Why nothing was written: codes of the problem catalogue."""

    NOT_FOUND = "not_found"
    PAYMENT_NOT_OPEN = "payment_not_open"
    AMOUNT_MISMATCH = "amount_mismatch"
    PROOF_REUSED = "proof_reused"
    REFUND_SETTLED = "refund_settled"
    BANK_LINE_SETTLED = "bank_line_settled"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How an operator knows: the number on the slip, and words of their own."""

    reference: str
    note: str
    actor: str

    def act(self) -> Act:
        return Act(actor=self.actor, reason=self.note)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that came in, or a refund that went back, by hand."""

    number: str
    state: str
    amount_minor: int
    currency: str
    reference: str


class ToppedUp(msgspec.Struct, frozen=True, kw_only=True):
    """A top-up, and the balance after it."""

    balance_id: str
    entry: int
    amount_minor: int
    currency: str
    balance_minor: int


@dataclass(frozen=True, slots=True)
class House:
    """The books, and the payments that belong to orders."""

    ledger: Database
    stage: PaymentStage

    async def confirm_offline(
        self, number: str, amount_minor: int, currency: str, proof: Proof
    ) -> Settled | HouseRefusal:
        """
        Confirm that the money of an offline payment is here; the same again is one act.

        Raises:
            LedgerUnavailable: unknown; repeat.
        """
        async with self.ledger.transaction() as connection:
            user = await store.find_paid_by(connection, OFFLINE, proof.reference)
            payment = await store.lock_payment(connection, number)
            if payment is None or payment.provider != OFFLINE:
                return HouseRefusal.NOT_FOUND
            if (payment.amount_minor, payment.currency) != (amount_minor, currency):
                return HouseRefusal.AMOUNT_MISMATCH
            if user not in {None, number}:
                return HouseRefusal.PROOF_REUSED
            if user is None:
                if payment.state is not PaymentState.OPEN:
                    return HouseRefusal.PAYMENT_NOT_OPEN
                await self._confirm(connection, number, proof)
        failpoint("house.after_confirm")
        await self.tell_paid([number])
        return Settled(
            number=number,
            state=PaymentState.PAID,
            amount_minor=amount_minor,
            currency=currency,
            reference=proof.reference,
        )

    async def _confirm(self, connection: Connection, number: str, proof: Proof) -> None:
        paid = store.Paid(
            reference=proof.reference,
            paid_at=self.stage.now(),
            note=proof.note,
            actor=proof.actor,
        )
        await store.mark_paid(connection, number, paid)
        detail = {"reference": proof.reference}
        await note_act(connection, proof.act(), "payment confirmed", number, detail)

    async def confirm_paid_back(self, number: str, proof: Proof) -> Settled | HouseRefusal:
        """
        Record that a refund was paid back by hand; the same again is one act.

        Raises:
            LedgerUnavailable: unknown; repeat.
        """
        async with self.ledger.transaction() as connection:
            # An import holds the bank's account and then wants the receivable: not both at once.
            await line_store.lock_lines(connection)
            refund = await store.lock_refund(connection, number)
            if refund is None or refund.provider == BALANCE:
                return HouseRefusal.NOT_FOUND
            if refund.is_settled and refund.reference != proof.reference:
                return HouseRefusal.REFUND_SETTLED
            if not refund.is_settled:
                await _pay_back(connection, refund, proof)
                refund = await store.lock_refund(connection, number) or refund
        failpoint("house.after_paid_back")
        await self._tell_refunded(refund)
        return Settled(
            number=number,
            state=refund.state,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            reference=proof.reference,
        )

    async def top_up(
        self, key: str, shopper: str, money: tuple[int, str], act: Act
    ) -> tuple[ToppedUp, bool] | HouseRefusal:
        """
        Put money on a shopper's balance, once per key.

        Returns:
            The top-up, and whether an earlier request with this key had made it.

        Raises:
            LedgerUnavailable: unknown; repeat with the key.
        """
        amount_minor, currency = money
        content = hashlib.sha256(f"{shopper}\n{amount_minor}\n{currency}".encode()).digest()
        async with self.ledger.transaction() as connection:
            earlier = await store.take_request(connection, TOP_UP, key, content)
            if earlier is not None:
                return replayed(earlier, content, ToppedUp)
            told = Movement(
                reference=key,
                amount_minor=amount_minor,
                currency=currency,
                moved_at=self.stage.now(),
            )
            moved = await store.add_to_balance(connection, shopper, told)
            answer = ToppedUp(
                balance_id=moved.balance_id,
                entry=moved.ordinal,
                amount_minor=amount_minor,
                currency=currency,
                balance_minor=moved.balance_minor,
            )
            detail = msgspec.to_builtins(answer)
            await store.answer_request(connection, TOP_UP, key, detail)
            await note_act(connection, act, "balance topped up", moved.balance_id, detail)
        return answer, False

    async def tell_paid(self, numbers: list[str]) -> None:
        """Let orders learn at once what the enquiry would tell them a little later."""
        for number in numbers:
            try:
                key = self._key(number)
                shard = self.stage.shards.of(key.sale, key.bucket)
                await ask_about(self.stage, await read_attempt(shard, AttemptNumber(number)))
            except Unavailable as error:
                _log.warning("payment_told_later", payment_id=number, why=str(error))

    async def _tell_refunded(self, refund: store.HouseRefund) -> None:
        provider = self.stage.providers.of(refund.provider, "")
        snapshot = refund_snapshot(refund)
        event = Event(
            provider=provider.code,
            notification_id=f"house:{refund.number}",
            event_at=self.stage.now(),
            about=snapshot,
        )
        try:
            await apply_refund(self.stage, provider, Verified(event, {}, b""), snapshot)
        except Unavailable as error:
            _log.warning("refund_told_later", refund_id=refund.number, why=str(error))

    def _key(self, number: str) -> OrderKey:
        key = self.stage.order_key(number)
        assert key is not None, f"the house only knows numbers of ours: {number}"
        return key


def replayed(
    earlier: tuple[bytes, object], content: bytes, shape: type[Answer]
) -> tuple[Answer, bool] | HouseRefusal:
    """Answer a key that was used before: as then, or with a refusal of other content."""
    fingerprint, answer = earlier
    if fingerprint != content:
        return HouseRefusal.IDEMPOTENCY_MISMATCH
    return msgspec.convert(answer, shape), True


async def _pay_back(connection: Connection, refund: store.HouseRefund, proof: Proof) -> None:
    at = await store.mark_refunded(
        connection, refund.number, proof.reference, proof.note, proof.actor
    )
    if refund.provider == TRANSFER:
        told = Movement(
            reference=refund.number,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            moved_at=at,
        )
        await post_transfers(connection, [post_paid_back(told)])
    detail = {"reference": proof.reference}
    await note_act(connection, proof.act(), "refund paid back", refund.number, detail)
