"""
Read one notification of WeChat Pay's; pure, so that it can be fuzzed.

The order of acts is the protection: size, signature, age, and only then JSON,
decryption and meaning. Amounts and accounts are told as they were received and
compared in one place for all providers (`payments.intent`).

Source:
    docs/PAYMENTS.md §1.5 and §6.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from app.kernel.clock import is_in_reach
from app.payments.provider import (
    CAPTURED_STATES,
    Event,
    MalformedMessage,
    RefundStatus,
    Snapshot,
    TransferState,
    Verified,
)
from app.payments.providers.wechatpay.messages import (
    Notification,
    NotifiedRefund,
    NotifiedTransfer,
    Transaction,
    open_sealed,
    read_document,
)
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.payments.providers.wechatpay.signing import (
    NONCE_HEADER,
    SERIAL_HEADER,
    TIMESTAMP_HEADER,
)
from app.payments.providers.wechatpay.snapshots import (
    notified_refund_snapshot,
    notified_transfer_snapshot,
    pay_snapshot,
)

PROVIDER: Final = "wechatpay"
NOTIFICATION_BYTES_MAX: Final = 65_536
RESOURCE_TYPE: Final = "encrypt-resource"

_REFUND_EVENTS: Final = {
    "REFUND.SUCCESS": RefundStatus.SUCCEEDED,
    "REFUND.ABNORMAL": RefundStatus.ABNORMAL,
    "REFUND.CLOSED": RefundStatus.CLOSED,
}
_FINISHED_TRANSFERS: Final = frozenset(
    {TransferState.SUCCEEDED, TransferState.FAILED, TransferState.CANCELLED},
)


class OversizedMessage(MalformedMessage):
    """The message is longer than any that WeChat Pay sends; it was not looked at."""


def check_size(raw: bytes) -> None:
    """Refuse what is too long to be looked at; raise OversizedMessage."""
    if len(raw) > NOTIFICATION_BYTES_MAX:
        raise OversizedMessage(bytes=len(raw))


def read_notification(
    account: WechatpayAccount,
    api_v3_keys: tuple[bytes, ...],
    headers: Mapping[str, str],
    raw: bytes,
) -> Verified:
    """
    Read a notification whose signature was checked.

    Args:
        account: whose callback URL it came to.
        api_v3_keys: 1..n, the one in force first.
        headers: as received.
        raw: the body as received, signed by WeChat Pay.

    Raises:
        MalformedMessage: it has no effect; says what it lacks.
    """
    told = read_document(raw, Notification)
    if told.resource_type != RESOURCE_TYPE:
        raise MalformedMessage(why="resource_type")
    if not is_in_reach(told.create_time):
        raise MalformedMessage(why="create_time is out of reach")
    read = _READERS.get((told.event_type, told.resource.original_type))
    if read is None:
        raise MalformedMessage(
            why=f"{told.event_type} about {told.resource.original_type} is nothing we know"
        )
    about = read(told.event_type, open_sealed(told.resource, api_v3_keys), account)
    event = Event(
        provider=PROVIDER,
        notification_id=told.id,
        event_at=told.create_time,
        about=about,
    )
    return Verified(event, kept_headers(headers), raw)


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep which key signed it and when; the rest of a signature proves nothing later."""
    wanted = (SERIAL_HEADER, TIMESTAMP_HEADER, NONCE_HEADER)
    told = {name.lower(): value for name, value in headers.items()}
    return {name: told.get(name.lower(), "") for name in wanted}


def _read_payment(_event_type: str, opened: bytes, account: WechatpayAccount) -> Snapshot:
    snapshot = pay_snapshot(read_document(opened, Transaction), account)
    if snapshot.state not in CAPTURED_STATES:
        raise MalformedMessage(why="it tells of a success, and of none")
    return snapshot


def _read_refund(event_type: str, opened: bytes, _account: WechatpayAccount) -> Snapshot:
    snapshot = notified_refund_snapshot(read_document(opened, NotifiedRefund))
    if snapshot.status is not _REFUND_EVENTS[event_type]:
        raise MalformedMessage(why="event_type and refund_status contradict each other")
    return snapshot


def _read_transfer(_event_type: str, opened: bytes, account: WechatpayAccount) -> Snapshot:
    snapshot = notified_transfer_snapshot(read_document(opened, NotifiedTransfer), account)
    if snapshot.state not in _FINISHED_TRANSFERS:
        raise MalformedMessage(why="it tells of a finished transfer, and of none")
    return snapshot


_Reader: TypeAlias = Callable[[str, bytes, WechatpayAccount], Snapshot]

_READERS: Final[Mapping[tuple[str, str], _Reader]] = {
    ("TRANSACTION.SUCCESS", "transaction"): _read_payment,
    **{(event_type, "refund"): _read_refund for event_type in _REFUND_EVENTS},
    ("MCHTRANSFER.BILL.FINISHED", "mch_payment"): _read_transfer,
}
