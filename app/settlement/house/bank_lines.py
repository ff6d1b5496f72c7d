"""
Import bank lines, and settle by hand those that paid nothing by themselves.

A file is one transaction: each line enters suspense once, by the bank's reference,
and leaves it when it names an open payment of exactly its amount. What it cannot pay
stays there, listed, until an operator assigns it or sends it back.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from app.sales.store import Act, note_act
from app.settlement.house import line_store, store
from app.settlement.house.desk import House, HouseRefusal, replayed
from app.settlement.house.line_store import BankLine, NewLine
from app.settlement.house.rules import TRANSFER, HousePayment, PaymentState, Verdict, judge_line
from app.storage.shards import Connection

IMPORT: Final = "bank_lines"
KNOWN: Final = "known"  # imported before, with the same money
DIFFERS: Final = "differs"  # imported before, with other money: nothing is done


class LineOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one line: matched, suspense, known or differs; and why."""

    reference: str
    outcome: str
    reason: str
    payment_id: str | None = None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each line of a file."""

    lines: list[LineOutcome]


@dataclass(frozen=True, slots=True)
class BankDesk:
    """What operators do with bank lines."""

    house: House

    async def import_lines(
        self, key: str, lines: Sequence[NewLine], act: Act
    ) -> tuple[Imported, bool] | HouseRefusal:
        """
        Take a file of bank lines, once per key and each line once for ever.

        Returns:
            What became of each, and whether an earlier request with this key did it.

        Raises:
            LedgerUnavailable: unknown; repeat with the key.
        """
        told = [(one.reference, one.amount_minor, one.currency, one.codes) for one in lines]
        content = hashlib.sha256(msgspec.json.encode(told)).digest()
        async with self.house.ledger.transaction() as connection:
            await line_store.lock_lines(connection)
            earlier = await store.take_request(connection, IMPORT, key, content)
            if earlier is not None:
                return replayed(earlier, content, Imported)
            imported = Imported(lines=[await _import(connection, line) for line in lines])
            answer = msgspec.to_builtins(imported)
            await store.answer_request(connection, IMPORT, key, answer)
            await note_act(connection, act, "bank lines imported", key, {"lines": len(lines)})
        matched = [one.payment_id for one in imported.lines if one.outcome == Verdict.MATCHED]
        await self.house.tell_paid([number for number in matched if number is not None])
        return imported, False

    async def assign(self, reference: str, number: str, act: Act) -> BankLine | HouseRefusal:
        """
        Let a line in suspense pay an open payment of its amount; the same again is one act.

        Raises:
            LedgerUnavailable: unknown; repeat.
        """
        async with self.house.ledger.transaction() as connection:
            await line_store.lock_lines(connection)
            line = await line_store.read_line(connection, reference)
            payment = await store.lock_payment(connection, number)
            if line is None or payment is None or payment.provider != TRANSFER:
                return HouseRefusal.NOT_FOUND
            if line.payment_number != number:
                refusal = _refuse_assigning(line, payment)
                if refusal is not None:
                    return refusal
                await line_store.match_line(connection, reference, payment, "assigned")
                detail = {"payment_id": number}
                await note_act(connection, act, "bank line assigned", reference, detail)
                line = await line_store.read_line(connection, reference) or line
        await self.house.tell_paid([number])
        return line

    async def send_back(
        self, reference: str, return_reference: str, act: Act
    ) -> BankLine | HouseRefusal:
        """
        Record that a line in suspense was sent back; the same again is one act.

        Raises:
            LedgerUnavailable: unknown; repeat.
        """
        async with self.house.ledger.transaction() as connection:
            await line_store.lock_lines(connection)
            line = await line_store.read_line(connection, reference)
            if line is None:
                return HouseRefusal.NOT_FOUND
            if line.return_reference == return_reference:
                return line
            if line.state != "suspense":
                return HouseRefusal.BANK_LINE_SETTLED
            await line_store.return_line(connection, line, return_reference)
            detail = {"reference": return_reference}
            await note_act(connection, act, "bank line sent back", reference, detail)
            return await line_store.read_line(connection, reference) or line


def _refuse_assigning(line: BankLine, payment: HousePayment) -> HouseRefusal | None:
    if line.state != "suspense":
        return HouseRefusal.BANK_LINE_SETTLED
    if payment.state is not PaymentState.OPEN:
        return HouseRefusal.PAYMENT_NOT_OPEN
    if not line.is_same_money(payment.amount_minor, payment.currency):
        return HouseRefusal.AMOUNT_MISMATCH
    return None


async def _import(connection: Connection, new: NewLine) -> LineOutcome:
    """Take one line in, and let it pay what it names."""
    named = await store.lock_payments_of_codes(connection, new.codes)
    verdict = judge_line(named, new.amount_minor, new.currency)
    if not await line_store.insert_line(connection, new, verdict):
        return await _known(connection, new)
    if verdict is not Verdict.MATCHED:
        return LineOutcome(reference=new.reference, outcome="suspense", reason=verdict)
    (payment,) = named
    await line_store.match_line(connection, new.reference, payment, verdict)
    return LineOutcome(
        reference=new.reference, outcome=verdict, reason=verdict, payment_id=payment.number
    )


async def _known(connection: Connection, new: NewLine) -> LineOutcome:
    line = await line_store.read_line(connection, new.reference)
    assert line is not None, new.reference
    same = line.is_same_money(new.amount_minor, new.currency)
    return LineOutcome(
        reference=new.reference,
        outcome=KNOWN if same else DIFFERS,
        reason=line.reason,
        payment_id=line.payment_number,
    )
