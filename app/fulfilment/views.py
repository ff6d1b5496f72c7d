"""How what follows a payment looks from outside."""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from app.fulfilment.after_sale import AfterSale, Parcel
from app.fulfilment.delivery import Delivery, mask
from app.fulfilment.invoice import InvoiceWish
from app.fulfilment.parcel_store import Note, Review, Shipment
from app.orders.views import MaskedDeliveryView, OrderView
from app.sales.policy import PolicyTerms


class ParcelView(msgspec.Struct, frozen=True, kw_only=True):
    """Goods under way."""

    carrier: str
    tracking_number: str


class AfterSaleView(msgspec.Struct, frozen=True, kw_only=True):
    """One after-sale case; `number` counts within the order."""

    number: int
    kind: str
    state: str
    reason: str
    quantity: int
    amount_minor: int
    returned_by: ParcelView | None
    resent_by: ParcelView | None
    refund_id: str | None
    asked_at: datetime
    changed_at: datetime


class AfterSaleList(msgspec.Struct, frozen=True, kw_only=True):
    """Every case of an order, the first one first; there are at most 99."""

    items: list[AfterSaleView]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """Where an order goes, in clear: what its label says."""

    receiver: str
    mobile: str
    address: str


class InvoiceView(msgspec.Struct, frozen=True, kw_only=True):
    """
    To whom an invoice goes; masked but for a company's name.

    Either `title` and `tax_number`, or `unreadable`: this process was not given the key.
    """

    kind: str
    title: str | UnsetType = UNSET
    tax_number: str | UnsetType | None = UNSET
    unreadable: Literal[True] | UnsetType = UNSET


class ReviewView(msgspec.Struct, frozen=True, kw_only=True):
    """Where an operator's review stands."""

    state: str
    reason: str | None
    decided_by: str | None
    decided_at: datetime | None


class ShipmentView(msgspec.Struct, frozen=True, kw_only=True):
    """How an order travels; `confirm_by` is when the clock confirms its receipt."""

    carrier: str
    tracking_number: str
    shipped_at: datetime
    confirm_by: datetime
    received_at: datetime | None


class NoteView(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wrote about an order."""

    text: str
    written_by: str
    written_at: datetime


class FulfilmentView(msgspec.Struct, frozen=True, kw_only=True):
    """All that operators see of a paid order; personal fields are masked."""

    order: OrderView
    review: ReviewView | None
    shipment: ShipmentView | None
    after_sales: list[AfterSaleView]
    invoice: InvoiceView | None
    notes: list[NoteView]


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """What a sale's merchant has decided about its paid orders."""

    sale: str
    refundable: str
    refund_window_seconds: int | None
    review: str
    review_from_minor: int | None
    confirm_after_seconds: int


def view_masked(delivery: Delivery) -> MaskedDeliveryView:
    """Show enough of the details to recognise one's own by."""
    shown = mask(delivery)
    return MaskedDeliveryView(receiver=shown.receiver, mobile=shown.mobile, address=shown.address)


def view_case(case: AfterSale) -> AfterSaleView:
    return AfterSaleView(
        number=case.ordinal,
        kind=case.kind,
        state=case.state,
        reason=case.reason,
        quantity=case.quantity,
        amount_minor=case.amount_minor,
        returned_by=_view_parcel(case.returned_by),
        resent_by=_view_parcel(case.resent_by),
        refund_id=case.refund_number,
        asked_at=case.asked_at,
        changed_at=case.changed_at,
    )


def view_invoice(wish: InvoiceWish) -> InvoiceView:
    """Mask a person's name and the middle of a tax number."""
    title = wish.title if wish.tax_number is not None else f"{wish.title[0]}**"
    number = wish.tax_number
    shown = None if number is None else f"{number[:4]}{'*' * (len(number) - 8)}{number[-4:]}"
    return InvoiceView(kind=wish.kind, title=title, tax_number=shown)


def view_review(review: Review) -> ReviewView:
    return ReviewView(
        state=review.state,
        reason=review.reason,
        decided_by=review.decided_by,
        decided_at=review.decided_at,
    )


def view_shipment(shipment: Shipment) -> ShipmentView:
    return ShipmentView(
        carrier=shipment.parcel.carrier,
        tracking_number=shipment.parcel.tracking_number,
        shipped_at=shipment.shipped_at,
        confirm_by=shipment.confirm_by,
        received_at=shipment.received_at,
    )


def view_note(note: Note) -> NoteView:
    return NoteView(text=note.text, written_by=note.written_by, written_at=note.written_at)


def view_policy(sale_id: str, policy: PolicyTerms) -> PolicyView:
    return PolicyView(
        sale=sale_id,
        refundable=policy.refundable,
        refund_window_seconds=policy.refund_window_seconds,
        review=policy.review,
        review_from_minor=policy.review_from_minor,
        confirm_after_seconds=policy.confirm_after_seconds,
    )


def _view_parcel(parcel: Parcel | None) -> ParcelView | None:
    if parcel is None:
        return None
    return ParcelView(carrier=parcel.carrier, tracking_number=parcel.tracking_number)
