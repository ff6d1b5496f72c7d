"""
Money to a person's wallet: single transfers, and batches for merchants who have them.

Pure: requests as bytes. A transfer keeps its number for ever; a batch of one takes
its only transfer's number, so both ways are the same to whoever asks. The payee's
name is encrypted for WeChat Pay before it leaves, and goes nowhere else.

Source:
    docs/PAYMENTS.md §1.11.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.payments.provider import TransferRequest
from app.payments.providers.wechatpay.products import plain_text
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.payments.providers.wechatpay.signing import Request, encrypt_field
from app.payments.providers.wechatpay.snapshots import CURRENCY

AMOUNT_MIN: Final = 10  # fen: 0.10 yuan
NAME_FROM: Final = 30  # below 0.30 yuan no name may be sent
NAME_NEEDED_FROM: Final = 200_000  # from 2000 yuan on one must be
REMARK_MAX: Final = 32
BATCH_TRANSFERS_MAX: Final = 1_000
NAME_BYTES_MAX: Final = 190  # what OAEP with SHA-1 fits into 2048 bits, less a reserve

SINGLE_PATH: Final = "/v3/fund-app/mch-transfer/transfer-bills"
BATCH_PATH: Final = "/v3/transfer/batches"

_NUMBER: Final = re.compile(r"[0-9A-Za-z]{5,32}", re.ASCII)


def transfer_mistake(account: WechatpayAccount, transfer: TransferRequest) -> str | None:
    """Say why a transfer can never be made; None: it may be sent."""
    name = transfer.payee_name or ""
    wrong = {
        "scene_missing": not account.transfer_scene_id,
        "number": _NUMBER.fullmatch(transfer.number) is None,
        "currency_or_amount": transfer.currency != CURRENCY or transfer.amount_minor < AMOUNT_MIN,
        "payee_missing": not transfer.payee_id,
        "payee_name_missing": not name and transfer.amount_minor >= NAME_NEEDED_FROM,
        "payee_name_too_long": len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX,
    }
    return next((code for code, is_so in wrong.items() if is_so), None)


def needs_encryption(transfer: TransferRequest) -> bool:
    """Whether the payee's name goes along."""
    return bool(transfer.payee_name) and transfer.amount_minor >= NAME_FROM


def single_request(
    account: WechatpayAccount,
    transfer: TransferRequest,
    callback_url: str,
    key: RSAPublicKey | None,
) -> Request:
    """Write the request for one transfer; `key` encrypts the payee's name."""
    body: dict[str, object] = {
        "appid": account.appid,
        "out_bill_no": transfer.number,
        "transfer_scene_id": account.transfer_scene_id,
        "openid": transfer.payee_id,
        **_sealed_name(transfer, key),
        "transfer_amount": transfer.amount_minor,
        "transfer_remark": _remark(transfer),
        "transfer_scene_report_infos": account.transfer_scene_reports,
        "notify_url": callback_url,
    }
    return Request("POST", SINGLE_PATH, msgspec.json.encode(body))


def query_single_request(number: str) -> Request:
    return Request("GET", f"{SINGLE_PATH}/out-bill-no/{quote(number, safe='')}")


def batch_request(
    account: WechatpayAccount,
    number: str,
    transfers: Sequence[TransferRequest],
    callback_url: str,
    key: RSAPublicKey | None,
) -> Request:
    """
    Write the request for a batch.

    Args:
        account: who pays.
        number: of the batch, 5..32 alphanumerics.
        transfers: 1..1000, checked one by one; sum and count are theirs.
        callback_url: where its end is told.
        key: encrypts the payees' names.
    """
    assert 1 <= len(transfers) <= BATCH_TRANSFERS_MAX
    remark = _remark(transfers[0])
    body = {
        "appid": account.appid,
        "out_batch_no": number,
        "batch_name": remark,
        "batch_remark": remark,
        "total_amount": sum(transfer.amount_minor for transfer in transfers),
        "total_num": len(transfers),
        "transfer_detail_list": [_detail(transfer, key) for transfer in transfers],
        "transfer_scene_id": account.transfer_scene_id,
        "notify_url": callback_url,
    }
    return Request("POST", BATCH_PATH, msgspec.json.encode(body))


def query_detail_request(batch_number: str, number: str) -> Request:
    """Write the question about one transfer of a batch."""
    batch, detail = quote(batch_number, safe=""), quote(number, safe="")
    return Request("GET", f"{BATCH_PATH}/out-batch-no/{batch}/details/out-detail-no/{detail}")


def _detail(transfer: TransferRequest, key: RSAPublicKey | None) -> dict[str, object]:
    return {
        "out_detail_no": transfer.number,
        "transfer_amount": transfer.amount_minor,
        "transfer_remark": _remark(transfer),
        "openid": transfer.payee_id,
        **_sealed_name(transfer, key),
    }


def _sealed_name(transfer: TransferRequest, key: RSAPublicKey | None) -> dict[str, str]:
    if not needs_encryption(transfer):
        return {}
    assert key is not None
    assert transfer.payee_name is not None
    return {"user_name": encrypt_field(key, transfer.payee_name)}


def _remark(transfer: TransferRequest) -> str:
    return plain_text(transfer.description, REMARK_MAX) or transfer.number
