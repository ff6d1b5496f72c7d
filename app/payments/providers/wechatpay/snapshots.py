"""
What WeChat Pay's words mean here: its states, as tables, and the snapshots made of them.

A word that is not in a table is never guessed at: it reads as `unknown`, which has
no effect, and somebody is told.

Source:
    docs/PAYMENTS.md §1.5, §1.7, §1.8 and §4.3.
"""

from collections.abc import Mapping
from typing import Final

from app.kernel.clock import is_in_reach
from app.payments.provider import (
    CAPTURED_STATES,
    MalformedMessage,
    PaySnapshot,
    PayState,
    RefundSnapshot,
    RefundStatus,
    TransferSnapshot,
    TransferState,
)
from app.payments.providers.wechatpay.messages import (
    BatchDetail,
    NotifiedRefund,
    NotifiedTransfer,
    Refund,
    Transaction,
    Transfer,
    TransferBegun,
)
from app.payments.providers.wechatpay.settings import WechatpayAccount

CURRENCY: Final = "CNY"  # a refund's notification names none; merchants are paid in no other

PAY_STATES: Final[Mapping[str, PayState]] = {
    "NOTPAY": PayState.NOT_PAID,
    "USERPAYING": PayState.PAYING,
    "SUCCESS": PayState.PAID,
    # Any refund, even a part, turns SUCCESS into REFUND: the money did come in,
    # and how much has gone back is asked of the refunds.
    "REFUND": PayState.PARTIAL_REFUND,
    "CLOSED": PayState.CLOSED,
    "REVOKED": PayState.CLOSED,
    "PAYERROR": PayState.NOT_PAID,  # one try of the payer's that failed
}

REFUND_STATUSES: Final[Mapping[str, RefundStatus]] = {
    "PROCESSING": RefundStatus.PROCESSING,
    "SUCCESS": RefundStatus.SUCCEEDED,
    "CLOSED": RefundStatus.CLOSED,
    "ABNORMAL": RefundStatus.ABNORMAL,
}

# Of a single transfer, and of one transfer within a batch.
TRANSFER_STATES: Final[Mapping[str, TransferState]] = {
    "ACCEPTED": TransferState.PROCESSING,
    "INIT": TransferState.PROCESSING,
    "WAIT_PAY": TransferState.PROCESSING,
    "PROCESSING": TransferState.PROCESSING,
    "WAIT_USER_CONFIRM": TransferState.WAIT_USER,
    "TRANSFERING": TransferState.PROCESSING,  # spelt so
    "SUCCESS": TransferState.SUCCEEDED,
    "FAIL": TransferState.FAILED,
    "CANCELING": TransferState.PROCESSING,
    "CANCELLED": TransferState.CANCELLED,
}


def pay_snapshot(told: Transaction, account: WechatpayAccount) -> PaySnapshot:
    """
    Turn WeChat Pay's view of a payment into ours.

    Raises:
        MalformedMessage: it is paid and says not how much, or when in a year that is none.
    """
    state = PAY_STATES.get(told.trade_state, PayState.UNKNOWN)
    if told.amount is None and state in CAPTURED_STATES:
        raise MalformedMessage(why="paid, and no amount")
    if told.success_time is not None and not is_in_reach(told.success_time):
        raise MalformedMessage(why="success_time is out of reach")
    return PaySnapshot(
        number=told.out_trade_no,
        state=state,
        merchant_id=told.mchid,
        app_id=account.told_app(told.trade_type, told.appid),
        provider_number=told.transaction_id,
        amount_minor=0 if told.amount is None else told.amount.total,
        currency="" if told.amount is None else told.amount.currency,
        paid_at=told.success_time,
    )


def notified_refund_snapshot(told: NotifiedRefund) -> RefundSnapshot:
    """Turn the refund inside a notification into ours."""
    return RefundSnapshot(
        number=told.out_refund_no,
        attempt_number=told.out_trade_no,
        status=REFUND_STATUSES.get(told.refund_status, RefundStatus.UNKNOWN),
        merchant_id=told.mchid,
        provider_number=told.refund_id,
        amount_minor=told.amount.refund,
        currency=CURRENCY,
    )


def refund_snapshot(told: Refund, mchid: str) -> RefundSnapshot:
    """
    Turn the refund in an answer into ours.

    It names no merchant: the one whose signed question it answers.
    """
    return RefundSnapshot(
        number=told.out_refund_no,
        attempt_number=told.out_trade_no,
        status=REFUND_STATUSES.get(told.status, RefundStatus.UNKNOWN),
        merchant_id=mchid,
        provider_number=told.refund_id,
        amount_minor=told.amount.refund,
        currency=told.amount.currency,
    )


def notified_transfer_snapshot(
    told: NotifiedTransfer, account: WechatpayAccount
) -> TransferSnapshot:
    """Turn the transfer inside a notification into ours; it names neither app nor currency."""
    return TransferSnapshot(
        number=told.out_bill_no,
        state=transfer_state(told.state),
        merchant_id=told.mch_id,
        app_id=account.appid,
        provider_number=told.transfer_bill_no,
        amount_minor=told.transfer_amount,
        currency=CURRENCY,
        failure=told.fail_reason or "",
    )


def begun_transfer_snapshot(
    told: TransferBegun, account: WechatpayAccount, amount_minor: int
) -> TransferSnapshot:
    """Turn the answer to a transfer into ours; it tells no more than its numbers and state."""
    return TransferSnapshot(
        number=told.out_bill_no,
        state=transfer_state(told.state),
        merchant_id=account.mchid,
        app_id=account.appid,
        provider_number=told.transfer_bill_no,
        amount_minor=amount_minor,
        currency=CURRENCY,
        acceptance=told.package_info,
    )


def transfer_snapshot(told: Transfer) -> TransferSnapshot:
    """Turn the answer to a question about a single transfer into ours."""
    return TransferSnapshot(
        number=told.out_bill_no,
        state=transfer_state(told.state),
        merchant_id=told.mch_id,
        app_id=told.appid,
        provider_number=told.transfer_bill_no,
        amount_minor=told.transfer_amount,
        currency=CURRENCY,
        failure=told.fail_reason or "",
    )


def detail_snapshot(told: BatchDetail, account: WechatpayAccount) -> TransferSnapshot:
    """Turn one transfer of a batch into ours."""
    return TransferSnapshot(
        number=told.out_detail_no,
        state=transfer_state(told.detail_status),
        merchant_id=told.mchid,
        app_id=told.appid or account.appid,
        provider_number=told.detail_id,
        amount_minor=told.transfer_amount,
        currency=CURRENCY,
        failure=told.fail_reason or "",
    )


def transfer_state(word: str) -> TransferState:
    return TRANSFER_STATES.get(word, TransferState.UNKNOWN)
