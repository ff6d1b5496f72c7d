"""The gateway's book: what may happen to a payment, and what a script makes of it."""

import pytest

from app.kernel.clock import instant
from app.payments.provider import PayState, Product, RefundStatus
from app.sandbox.book import Book, Refused, digest
from app.sandbox.downloads import Downloads
from app.sandbox.numbers import BEIJING, payment_number_of, refund_number_of
from app.sandbox.records import (
    Call,
    Payment,
    Refund,
    RefundPlay,
    Script,
    Transfer,
    TransferPlay,
    TransferStatus,
    Wire,
)
from app.sandbox.schedules import ALIPAY_RETRY_SECONDS, WECHATPAY_RETRY_SECONDS
from app.sandbox.scripts import Scripts
from app.sandbox.settings import SandboxSettings
from app.sandbox.statements import LineKind, Statements
from app.sandbox.transfers import TransferBook
from tests.fakes import FixedClock

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


class Gateway:
    """The books of one gateway, and every line they have written."""

    def __init__(self, folder, clock=None, **settings):
        self.lines = []
        self.clock = clock or FixedClock(NOW_MS)
        self.settings = SandboxSettings(journal_dir=folder, keys={}, **settings)
        self.scripts = Scripts(self.lines.append)
        told = (self.settings, self.clock, self.lines.append, self.scripts)
        self.book = Book(*told)
        self.transfers = TransferBook(*told)

    def again(self):
        """Start anew from what was written."""
        later = Gateway(self.settings.journal_dir, self.clock)
        for memory in (later.scripts, later.book, later.transfers):
            memory.remember(self.lines)
        return later


@pytest.fixture
def gateway(tmp_path):
    return Gateway(tmp_path)


def payment(number="N1", **changes):
    asked = {
        "wire": Wire.WECHATPAY,
        "number": number,
        "merchant_id": "m",
        "app_id": "a",
        "product": Product.NATIVE,
        "amount_minor": 100,
        "currency": "CNY",
        "description": "tea",
        "content": digest(number),
        "created_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 60_000,
        "callback_url": "",
    }
    return Payment(**{**asked, **changes})


def refund(number="R1", amount_minor=40, **changes):
    asked = {
        "wire": Wire.WECHATPAY,
        "number": number,
        "payment_number": "N1",
        "merchant_id": "m",
        "amount_minor": amount_minor,
        "currency": "CNY",
        "reason": "",
        "content": digest(amount_minor),
        "callback_url": "",
        "provider_number": refund_number_of(Wire.WECHATPAY, number),
        "created_at_ms": NOW_MS,
        "ready_at_ms": None,
        "ends_as": RefundStatus.SUCCEEDED,
    }
    return Refund(**{**asked, **changes})


def transfer(number="T1", **changes):
    asked = {
        "wire": Wire.ALIPAY,
        "number": number,
        "merchant_id": "m",
        "app_id": "a",
        "payee": "p",
        "amount_minor": 100,
        "remark": "",
        "content": digest(number),
        "callback_url": "",
        "provider_number": "1",
        "created_at_ms": NOW_MS,
        "ready_at_ms": None,
        "ends_as": TransferStatus.SUCCEEDED,
    }
    return Transfer(**{**asked, **changes})


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        (None, payment(currency="XXX"), Refused.CURRENCY_UNKNOWN),
        (None, payment(expires_at_ms=NOW_MS), Refused.EXPIRED),
        (payment(), payment(content="other"), Refused.NUMBER_USED),
        (payment(), payment(wire=Wire.ALIPAY), Refused.NUMBER_USED),
        (payment("N0"), payment(), Refused.FULL),
    ],
)
def test_what_cannot_be_opened(tmp_path, first, second, answer):
    gateway = Gateway(tmp_path, payments_max=1)
    if first is not None:
        gateway.book.create(first)
    assert gateway.book.create(second) is answer


def test_a_payment_past_its_time_reads_as_closed_and_can_still_be_paid(gateway):
    gateway.book.create(payment())
    gateway.clock.advance(60_000)
    assert gateway.book.payment("N1").state is PayState.CLOSED
    assert gateway.book.open_payments(10) == []
    assert gateway.book.pay("N1").state is PayState.PAID
    assert gateway.book.close("N1") is Refused.ALREADY_PAID


def test_refunds_stay_within_the_payment(gateway):
    gateway.book.create(payment())
    assert gateway.book.refund(refund(), 0) is Refused.NOT_PAID
    gateway.book.pay("N1")
    assert gateway.book.refund(refund(amount_minor=101), 0) is Refused.EXCEEDS_PAYMENT
    assert gateway.book.refund(refund(currency="USD"), 0) is Refused.EXCEEDS_PAYMENT
    first = gateway.book.refund(refund(), 1_000)
    assert gateway.book.refund(refund(), 1_000) == first
    assert gateway.book.refund(refund(amount_minor=41), 0) is Refused.NUMBER_USED
    assert gateway.book.refund(refund("R2", 61), 0) is Refused.EXCEEDS_PAYMENT
    assert gateway.book.payment("N1").state is PayState.PARTIAL_REFUND
    gateway.book.refund(refund("R2", 60), 0)
    assert gateway.book.payment("N1").state is PayState.REFUNDED


@pytest.mark.parametrize(
    ("play", "at_once", "later", "left"),
    [
        (RefundPlay.SUCCEED, RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, 60),
        (RefundPlay.ABNORMAL, RefundStatus.PROCESSING, RefundStatus.ABNORMAL, 60),
        (RefundPlay.CLOSED, RefundStatus.PROCESSING, RefundStatus.CLOSED, 100),
        (RefundPlay.HELD, RefundStatus.PROCESSING, RefundStatus.PROCESSING, 60),
    ],
)
def test_a_refund_goes_as_its_script_says(gateway, play, at_once, later, left):
    gateway.scripts.put(Script(number="N1", refund=play))
    gateway.book.create(payment())
    gateway.book.pay("N1")
    made = gateway.book.refund(refund(), 1_000)
    assert made.status(gateway.clock.now_ms()) is at_once
    gateway.clock.advance(1_000)
    assert made.status(gateway.clock.now_ms()) is later
    paid = gateway.book.payment("N1")
    assert paid.captured_minor - paid.refunded_minor == left


def test_a_refund_is_refused_when_the_script_says_so(gateway):
    gateway.scripts.put(Script(number="N1", refund=RefundPlay.REFUSED))
    gateway.book.create(payment())
    gateway.book.pay("N1")
    assert gateway.book.refund(refund(), 0) is Refused.NOT_ENOUGH
    assert gateway.book.refunds_of("N1") == []


def test_a_lost_answer_is_used_up(gateway):
    gateway.scripts.put(Script(number="N1", lost_answers={Call.REFUND: 2}))
    lost = [gateway.scripts.loses_answer("N1", Call.REFUND) for _ in range(3)]
    assert lost == [True, True, False]
    assert not gateway.scripts.loses_answer("N1", Call.CREATE)
    assert not gateway.scripts.loses_answer("N2", Call.REFUND)


@pytest.mark.parametrize(
    ("play", "at_once", "later"),
    [
        (TransferPlay.SUCCEED, TransferStatus.PROCESSING, TransferStatus.SUCCEEDED),
        (TransferPlay.FAIL, TransferStatus.PROCESSING, TransferStatus.FAILED),
        (TransferPlay.HELD, TransferStatus.WAITING, TransferStatus.WAITING),
    ],
)
def test_a_transfer_goes_as_its_script_says(gateway, play, at_once, later):
    gateway.scripts.put(Script(number="T1", transfer=play))
    sent = gateway.transfers.send(transfer(), 1_000)
    assert gateway.transfers.send(transfer(), 1_000) == sent
    assert gateway.transfers.send(transfer(content="other"), 0) is Refused.NUMBER_USED
    assert sent.status(gateway.clock.now_ms()) is at_once
    gateway.clock.advance(1_000)
    assert sent.status(gateway.clock.now_ms()) is later


def test_everything_is_remembered(gateway):
    gateway.scripts.put(Script(number="N1", lost_answers={Call.QUERY: 1}))
    gateway.book.create(payment())
    gateway.book.pay("N1")
    gateway.book.end_refund(gateway.book.refund(refund(), 9_000), RefundStatus.ABNORMAL)
    gateway.transfers.send(transfer(), 0)
    later = gateway.again()
    assert later.book.payment("N1") == gateway.book.payment("N1")
    assert later.book.refund_by_number("R1") == gateway.book.refund_by_number("R1")
    assert later.transfers.find("T1") == gateway.transfers.find("T1")
    assert later.scripts.loses_answer("N1", Call.QUERY)
    gateway.clock.advance(31 * DAY_MS)
    forgotten = gateway.again()
    assert forgotten.book.payment("N1") is Refused.NOT_FOUND
    assert forgotten.book.refund_by_number("R1") is Refused.NOT_FOUND


def test_a_fee_is_rounded_half_up_and_only_the_day_is_listed(gateway):
    gateway.book.create(payment(amount_minor=250))
    gateway.book.pay("N1")
    statements = Statements(gateway.book, gateway.scripts, fee_bps=60)
    day = gateway.book.payment("N1").paid_at_ms
    assert day == NOW_MS
    [line] = statements.of(Wire.WECHATPAY, "m", _beijing_day(NOW_MS))
    assert (line.kind, line.amount_minor, line.fee_minor) == (LineKind.PAYMENT, 250, 2)
    assert statements.of(Wire.WECHATPAY, "m", _beijing_day(NOW_MS + DAY_MS)) == []
    assert statements.of(Wire.ALIPAY, "m", _beijing_day(NOW_MS)) == []


def _beijing_day(at_ms):
    return instant(at_ms).astimezone(BEIJING).date()


def test_a_download_ends():
    clock = FixedClock(NOW_MS)
    files = Downloads(clock, lifetime_ms=30_000)
    token = files.offer(b"bill")
    assert files.fetch(token) == b"bill"
    assert files.fetch("guess") is None
    clock.advance(30_000)
    assert files.fetch(token) is None


def test_the_schedules_are_those_of_the_providers():
    assert (len(WECHATPAY_RETRY_SECONDS), sum(WECHATPAY_RETRY_SECONDS)) == (15, 86_640)
    assert (len(ALIPAY_RETRY_SECONDS), sum(ALIPAY_RETRY_SECONDS)) == (7, 87_840)


@pytest.mark.parametrize("wire", [Wire.WECHATPAY, Wire.ALIPAY])
def test_a_real_gateway_gives_numbers_of_28_digits(wire):
    number = payment_number_of(wire, "N1", NOW_MS)
    assert (len(number), number.isdigit()) == (28, True)
    assert number == payment_number_of(wire, "N1", NOW_MS)
