"""What is so, in the words of the small protocol."""

from app.kernel.clock import instant
from app.payments.providers.sandbox_wire import PaymentMessage, RefundMessage
from app.sandbox.records import Payment, Refund


def tell_payment(payment: Payment, page: str) -> PaymentMessage:
    """Say what is so about a payment."""
    return PaymentMessage(
        number=payment.number,
        merchant_id=payment.merchant_id,
        app_id=payment.app_id,
        state=payment.state,
        amount_minor=payment.captured_minor or payment.amount_minor,
        currency=payment.currency,
        page=page,
        provider_number=payment.provider_number,
        paid_at=None if payment.paid_at_ms is None else instant(payment.paid_at_ms),
    )


def tell_refund(refund: Refund, at_ms: int) -> RefundMessage:
    """Say what is so about a refund at a moment."""
    return RefundMessage(
        number=refund.number,
        payment_number=refund.payment_number,
        merchant_id=refund.merchant_id,
        status=refund.status(at_ms),
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        provider_number=refund.provider_number,
    )
