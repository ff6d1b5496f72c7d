"""The gateway as its doors see it: the books, the voices, the callbacks on their way."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.sandbox.address import Address
from app.sandbox.book import Book, Refused
from app.sandbox.delivery import Deliveries
from app.sandbox.records import Payment, Refund, Transfer, Wire
from app.sandbox.scripts import Scripts
from app.sandbox.settings import SandboxSettings
from app.sandbox.transfers import TransferBook
from app.sandbox.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every door needs, made once in `server`."""

    settings: SandboxSettings
    book: Book
    transfers: TransferBook
    scripts: Scripts
    deliveries: Deliveries
    voices: Mapping[Wire, Voice]
    address: Address

    def page_of(self, number: str) -> str:
        return self.address.page_of(number)

    def refund(self, asked: Refund, after_ms: int) -> Refund | Refused:
        """Send money back, and tell of its end when it has come."""
        is_new = isinstance(self.book.find_refund(asked.payment_number, asked.number), Refused)
        refund = self.book.refund(asked, after_ms)
        if is_new and isinstance(refund, Refund):
            self.tell_of_refund(refund)
        return refund

    def tell_of_refund(self, refund: Refund) -> None:
        """Send the notification that a refund has ended, if one was asked for."""
        payment = self.book.payment(refund.payment_number)
        voice = self.voices.get(refund.wire)
        if voice is not None and isinstance(payment, Payment) and refund.callback_url:
            callback = voice.refund_notice(refund, payment)
            if callback is not None:
                self.deliveries.deliver(callback)

    def tell_of_transfer(self, transfer: Transfer) -> None:
        """Send the notification that a transfer has ended, if one was asked for."""
        voice = self.voices.get(transfer.wire)
        callback = None if voice is None else voice.transfer_notice(transfer)
        if callback is not None and callback.url:
            self.deliveries.deliver(callback)
