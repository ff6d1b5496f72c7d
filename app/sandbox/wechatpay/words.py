"""
What is so, in WeChat Pay's words: documents for answers and notifications.

Source:
    docs/PAYMENTS.md §1.5, §1.7, §1.8 and §1.11.
"""

import hashlib
from typing import Any, Final

from app.kernel.clock import instant
from app.payments.provider import PayState, Product, RefundStatus
from app.sandbox.numbers import BEIJING
from app.sandbox.records import Payment, Refund, Transfer, TransferBatch, TransferStatus

TRADE_TYPES: Final = {
    Product.NATIVE: "NATIVE",
    Product.JSAPI: "JSAPI",
    Product.H5: "MWEB",
    Product.APP: "APP",
}
_TRADE_STATES: Final = {
    PayState.NOT_PAID: ("NOTPAY", "订单未支付"),
    PayState.PAID: ("SUCCESS", "支付成功"),
    PayState.PARTIAL_REFUND: ("REFUND", "订单发生过退款"),
    PayState.REFUNDED: ("REFUND", "订单发生过退款"),
    PayState.CLOSED: ("CLOSED", "订单已关闭"),
}
REFUND_STATUSES: Final = {
    RefundStatus.PROCESSING: "PROCESSING",
    RefundStatus.SUCCEEDED: "SUCCESS",
    RefundStatus.CLOSED: "CLOSED",
    RefundStatus.ABNORMAL: "ABNORMAL",
}
TRANSFER_STATES: Final = {
    TransferStatus.PROCESSING: "WAIT_USER_CONFIRM",
    TransferStatus.WAITING: "WAIT_USER_CONFIRM",
    TransferStatus.SUCCEEDED: "SUCCESS",
    TransferStatus.FAILED: "FAIL",
    TransferStatus.CANCELLED: "CANCELLED",
}
_DETAIL_STATES: Final = {
    TransferStatus.PROCESSING: "PROCESSING",
    TransferStatus.WAITING: "WAIT_PAY",
    TransferStatus.SUCCEEDED: "SUCCESS",
    TransferStatus.FAILED: "FAIL",
    TransferStatus.CANCELLED: "FAIL",
}
_FAILED: Final = "PAYEE_ACCOUNT_ABNORMAL"
_RUNNING: Final = frozenset({TransferStatus.PROCESSING, TransferStatus.WAITING})

Document = dict[str, Any]


def beijing_time(at_ms: int) -> str:
    """Write an instant as WeChat Pay does: RFC 3339 in Beijing's time, whole seconds."""
    return instant(at_ms).astimezone(BEIJING).isoformat(timespec="seconds")


def trade_type(payment: Payment) -> str:
    return TRADE_TYPES[payment.product]


def payer_of(payment: Payment) -> str:
    """Name the payer as an app knows them; made up where nobody said who pays."""
    made_up = hashlib.sha256(payment.number.encode()).hexdigest()[:26]
    return payment.payer or f"oS{made_up}"


def transaction(payment: Payment) -> Document:
    """Tell a payment: the answer to a query, and what a notification holds."""
    state, described = _TRADE_STATES[payment.state]
    total = payment.captured_minor or payment.amount_minor
    told: Document = {
        "mchid": payment.merchant_id,
        "appid": payment.app_id,
        "out_trade_no": payment.number,
        "trade_state": state,
        "trade_state_desc": described,
        "attach": payment.attach,
        "amount": {"total": total, "currency": payment.currency},
    }
    if payment.paid_at_ms is None or payment.state in (PayState.NOT_PAID, PayState.CLOSED):
        return told
    told |= {
        "transaction_id": payment.provider_number,
        "trade_type": trade_type(payment),
        "bank_type": "OTHERS",
        "success_time": beijing_time(payment.paid_at_ms),
        "payer": {"openid": payer_of(payment)},
    }
    told["amount"] |= {"payer_total": total, "payer_currency": payment.currency}
    return told


def refund_answer(refund: Refund, payment: Payment, now_ms: int) -> Document:
    """Tell a refund to whoever asks for it, or about it."""
    status = refund.status(now_ms)
    told: Document = {
        "refund_id": refund.provider_number,
        "out_refund_no": refund.number,
        "transaction_id": payment.provider_number,
        "out_trade_no": payment.number,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": beijing_time(refund.created_at_ms),
        "status": REFUND_STATUSES[status],
        "funds_account": "AVAILABLE",
        "amount": _refund_amount(refund, payment)
        | {
            "settlement_refund": refund.amount_minor,
            "settlement_total": payment.captured_minor,
            "discount_refund": 0,
            "currency": refund.currency,
        },
    }
    if status is RefundStatus.SUCCEEDED and refund.ready_at_ms is not None:
        told["success_time"] = beijing_time(refund.ready_at_ms)
    return told


def refund_notice(refund: Refund, payment: Payment) -> Document:
    """Tell the end of a refund in a notification: other names, and no currency."""
    told: Document = {
        "mchid": refund.merchant_id,
        "out_trade_no": payment.number,
        "transaction_id": payment.provider_number,
        "out_refund_no": refund.number,
        "refund_id": refund.provider_number,
        "refund_status": REFUND_STATUSES[refund.ends_as],
        "user_received_account": "支付用户零钱",
        "amount": _refund_amount(refund, payment),
    }
    if refund.ends_as is RefundStatus.SUCCEEDED and refund.ready_at_ms is not None:
        told["success_time"] = beijing_time(refund.ready_at_ms)
    return told


def _refund_amount(refund: Refund, payment: Payment) -> Document:
    return {
        "total": payment.captured_minor,
        "refund": refund.amount_minor,
        "payer_total": payment.captured_minor,
        "payer_refund": refund.amount_minor,
    }


def transfer_begun(transfer: Transfer, now_ms: int) -> Document:
    """Answer a single transfer: with `package_info` the payee's wallet accepts it."""
    state = TRANSFER_STATES[transfer.status(now_ms)]
    told: Document = {
        "out_bill_no": transfer.number,
        "transfer_bill_no": transfer.provider_number,
        "create_time": beijing_time(transfer.created_at_ms),
        "state": state,
    }
    if state == "WAIT_USER_CONFIRM":
        told["package_info"] = f"package-{transfer.provider_number}"
    return told


def transfer_answer(transfer: Transfer, now_ms: int) -> Document:
    """Tell a single transfer to whoever asks about it, or in a notification."""
    status = transfer.status(now_ms)
    told: Document = {
        "mch_id": transfer.merchant_id,
        "out_bill_no": transfer.number,
        "transfer_bill_no": transfer.provider_number,
        "appid": transfer.app_id,
        "state": TRANSFER_STATES[status],
        "transfer_amount": transfer.amount_minor,
        "transfer_remark": transfer.remark,
        "openid": transfer.payee,
        "create_time": beijing_time(transfer.created_at_ms),
        "update_time": beijing_time(transfer.ready_at_ms or transfer.created_at_ms),
    }
    if status is TransferStatus.FAILED:
        told["fail_reason"] = _FAILED
    return told


def batch_begun(batch: TransferBatch) -> Document:
    return {
        "out_batch_no": batch.number,
        "batch_id": batch.provider_number,
        "create_time": beijing_time(batch.created_at_ms),
        "batch_status": "ACCEPTED",
    }


def batch_answer(batch: TransferBatch, transfers: list[Transfer], now_ms: int) -> Document:
    """Tell a batch: finished when each of its transfers is."""
    sent = [one for one in transfers if one.status(now_ms) is TransferStatus.SUCCEEDED]
    running = any(one.status(now_ms) in _RUNNING for one in transfers)
    failed = [one for one in transfers if one not in sent and one.status(now_ms) not in _RUNNING]
    return {
        "mchid": batch.merchant_id,
        "appid": batch.app_id,
        "out_batch_no": batch.number,
        "batch_id": batch.provider_number,
        "batch_status": "PROCESSING" if running else "FINISHED",
        "batch_type": "API",
        "batch_name": batch.name,
        "batch_remark": batch.remark,
        "total_amount": batch.amount_minor,
        "total_num": len(batch.transfers),
        "create_time": beijing_time(batch.created_at_ms),
        "success_amount": sum(one.amount_minor for one in sent),
        "success_num": len(sent),
        "fail_amount": sum(one.amount_minor for one in failed),
        "fail_num": len(failed),
    }


def detail_answer(batch: TransferBatch, transfer: Transfer, now_ms: int) -> Document:
    """Tell one transfer of a batch."""
    status = transfer.status(now_ms)
    told: Document = {
        "mchid": transfer.merchant_id,
        "out_batch_no": batch.number,
        "batch_id": batch.provider_number,
        "appid": transfer.app_id,
        "out_detail_no": transfer.number,
        "detail_id": transfer.provider_number,
        "detail_status": _DETAIL_STATES[status],
        "transfer_amount": transfer.amount_minor,
        "transfer_remark": transfer.remark,
        "openid": transfer.payee,
        "initiate_time": beijing_time(transfer.created_at_ms),
        "update_time": beijing_time(transfer.ready_at_ms or transfer.created_at_ms),
    }
    if status in (TransferStatus.FAILED, TransferStatus.CANCELLED):
        told["fail_reason"] = _FAILED
    return told
