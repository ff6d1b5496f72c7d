"""
Every refusal this service can answer: its status and its words in both languages.

`code` is stable and never translated; titles and details are. The order follows
the status, so the table reads like the contract.

Source:
    RFC 9457 (problem details); RFC 9110 (status codes).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Language(StrEnum):
    """The languages of titles and details."""

    ENGLISH = "en"
    CHINESE = "zh-CN"


class Words(NamedTuple):
    """One sentence in each language."""

    english: str
    chinese: str

    def in_language(self, language: Language) -> str:
        """Pick the sentence for `language`."""
        return self.chinese if language is Language.CHINESE else self.english


class WaitRange(NamedTuple):
    """How long a refused client should wait, drawn at random between the two."""

    min_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKind:
    """What is fixed about one code."""

    status: int
    title: Words
    detail: Words
    retryable: bool = False
    wait: WaitRange | None = None  # None: no Retry-After unless the caller gives one


def _kind(
    status: int,
    title: tuple[str, str],
    detail: tuple[str, str],
    *,
    wait: WaitRange | None = None,
    retryable: bool = False,
) -> ProblemKind:
    return ProblemKind(
        status=status,
        title=Words(*title),
        detail=Words(*detail),
        wait=wait,
        retryable=retryable or wait is not None,
    )


# Clients that were refused together must not come back together, so the longer
# waits are drawn at random.
AT_ONCE: Final = WaitRange(200, 1_000)
WHILE_RECOVERING: Final = WaitRange(1_000, 3_000)
WHILE_OVERLOADED: Final = WaitRange(1_000, 5_000)

PROBLEMS: Final[Mapping[str, ProblemKind]] = {
    "bad_request": _kind(
        400,
        ("Bad request", "请求有误"),
        ("The request could not be read.", "无法读取该请求。"),
    ),
    "idempotency_key_missing": _kind(
        400,
        ("Idempotency key missing", "缺少幂等键"),
        ("Send an Idempotency-Key header.", "请携带 Idempotency-Key 请求头。"),
    ),
    "idempotency_key_invalid": _kind(
        400,
        ("Idempotency key invalid", "幂等键无效"),
        (
            "The key is a UUID or 16 to 64 letters, digits, '_' or '-'.",
            "幂等键须为 UUID,或 16 至 64 个字母、数字、“_”、“-”。",
        ),
    ),
    "unauthorized": _kind(
        401,
        ("Unauthorized", "未认证"),
        ("A valid token is needed.", "需要有效的令牌。"),
    ),
    "not_open": _kind(
        403,
        ("Not open yet", "尚未开售"),
        ("The sale has not opened yet.", "活动尚未开始。"),
        retryable=True,
    ),
    "sale_ended": _kind(
        403,
        ("Sale ended", "活动已结束"),
        ("The sale has ended.", "活动已经结束。"),
    ),
    "sale_paused": _kind(
        403,
        ("Sale paused", "活动已暂停"),
        ("The sale is paused.", "活动暂停中。"),
        wait=WHILE_OVERLOADED,
    ),
    "not_admitted": _kind(
        403,
        ("Not admitted", "未获准入"),
        ("You may not try at this moment.", "当前不可参与。"),
    ),
    "forbidden": _kind(
        403,
        ("Forbidden", "无权限"),
        ("This token does not allow that.", "该令牌无此权限。"),
    ),
    "payment_refused": _kind(
        403,
        ("Payment refused", "支付被拒绝"),
        ("This payment cannot be opened.", "无法发起该笔支付。"),
    ),
    "csrf_failed": _kind(
        403,
        ("CSRF check failed", "CSRF 校验失败"),
        ("Send the X-CSRF-Token of your session.", "请携带会话的 X-CSRF-Token。"),
    ),
    "not_found": _kind(
        404,
        ("Not found", "未找到"),
        ("There is nothing at this address.", "该地址不存在。"),
    ),
    "sale_not_found": _kind(
        404,
        ("Sale not found", "活动不存在"),
        ("There is no such sale.", "没有这个活动。"),
    ),
    "order_not_found": _kind(
        404,
        ("Order not found", "订单不存在"),
        ("You have no such order.", "您没有这个订单。"),
    ),
    "group_not_found": _kind(
        404,
        ("Group not found", "团不存在"),
        ("There is no such group.", "没有这个团。"),
    ),
    "payment_not_found": _kind(
        404,
        ("Payment not found", "支付不存在"),
        ("There is no such payment.", "没有这笔支付。"),
    ),
    "after_sale_not_found": _kind(
        404,
        ("After-sale case not found", "售后单不存在"),
        ("The order has no such case.", "该订单没有这个售后单。"),
    ),
    "method_not_allowed": _kind(
        405,
        ("Method not allowed", "方法不允许"),
        ("This address does not take that method.", "该地址不支持此方法。"),
    ),
    "request_timeout": _kind(
        408,
        ("Request timeout", "请求超时"),
        ("The request did not arrive in time.", "请求未在时限内到达。"),
        retryable=True,
    ),
    "sold_out": _kind(
        409,
        ("Sold out", "已售罄"),
        ("Nothing is left for this order.", "没有可供此单的库存。"),
    ),
    "limit_reached": _kind(
        409,
        ("Limit reached", "已达限购"),
        ("You may not buy that many.", "超出每人限购数量。"),
    ),
    "order_not_confirmed": _kind(
        409,
        ("Order not confirmed yet", "订单尚未确认"),
        ("The order is still being written.", "订单正在写入。"),
        wait=AT_ONCE,
    ),
    "order_not_payable": _kind(
        409,
        ("Order not payable", "订单不可支付"),
        ("This order can no longer be paid.", "该订单已不能支付。"),
    ),
    "balance_insufficient": _kind(
        409,
        ("Balance too low", "余额不足"),
        ("The balance does not cover this payment.", "余额不足以支付该订单。"),
    ),
    "payment_not_open": _kind(
        409,
        ("Payment not open", "支付单不可入账"),
        ("This payment can no longer be paid.", "该支付单已不能入账。"),
    ),
    "amount_mismatch": _kind(
        409,
        ("Amount differs", "金额不符"),
        ("The amount or its currency is not that of the payment.", "金额或币种与支付单不符。"),
    ),
    "proof_reused": _kind(
        409,
        ("Proof already used", "凭证已使用"),
        ("This reference has paid another payment.", "该凭证已用于另一笔支付。"),
    ),
    "refund_settled": _kind(
        409,
        ("Refund already settled", "退款已完成"),
        ("This refund was paid back by another proof.", "该退款已凭其他凭证完成。"),
    ),
    "refund_under_way": _kind(
        409,
        ("Refund under way", "退款处理中"),
        (
            "Its provider has not refused this refund; only a refused one is closed by hand.",
            "只有被支付渠道拒绝的退款才能人工结清。",
        ),
    ),
    "bank_line_settled": _kind(
        409,
        ("Bank line already settled", "银行流水已处理"),
        ("This line was matched or sent back before.", "该流水已匹配或已退回。"),
    ),
    "order_not_cancellable": _kind(
        409,
        ("Order not cancellable", "订单不可取消"),
        ("This order can no longer be cancelled.", "该订单已不能取消。"),
    ),
    "order_not_shippable": _kind(
        409,
        ("Order not shippable", "订单不可发货"),
        ("This order cannot be shipped.", "该订单不能发货。"),
    ),
    "order_not_confirmable": _kind(
        409,
        ("Receipt not confirmable", "不可确认收货"),
        ("Only a shipped order can be confirmed.", "仅已发货的订单可确认收货。"),
    ),
    "delivery_locked": _kind(
        409,
        ("Delivery locked", "收货信息已锁定"),
        ("The delivery can no longer be changed.", "收货信息已不能修改。"),
    ),
    "refund_exceeds_paid": _kind(
        409,
        ("Refund exceeds payment", "退款超过已付"),
        ("More than was paid cannot be refunded.", "退款金额不能超过已付金额。"),
    ),
    "not_refundable": _kind(
        409,
        ("Not refundable", "不可退款"),
        ("This order cannot be refunded.", "该订单不能退款。"),
    ),
    "group_full": _kind(
        409,
        ("Group full", "团已满"),
        ("The group has no seat left.", "该团已没有名额。"),
    ),
    "group_expired": _kind(
        409,
        ("Group expired", "团已过期"),
        ("The group's time is over.", "该团已过期。"),
    ),
    "already_in_group": _kind(
        409,
        ("Already in a group", "已在团中"),
        ("You already have a seat.", "您已在团中。"),
    ),
    "order_not_reviewable": _kind(
        409,
        ("Order not reviewable", "订单不可审核"),
        ("Only a paid order that was not shipped can be reviewed.", "仅已支付未发货的订单可审核。"),
    ),
    "after_sale_conflict": _kind(
        409,
        ("After-sale conflict", "售后状态冲突"),
        (
            "The case's state, or another open case, does not allow that.",
            "售后单状态或其他未结售后单不允许此操作。",
        ),
    ),
    "payment_held": _kind(
        409,
        ("Payment held", "支付待审核"),
        ("This payment waits to be looked at.", "该笔支付正在等待审核。"),
    ),
    "payment_not_held": _kind(
        409,
        ("Payment not held", "支付未被暂挂"),
        ("No payment of this order waits to be looked at.", "该订单没有待审核的支付。"),
    ),
    "payment_in_progress": _kind(
        409,
        ("Payment in progress", "支付处理中"),
        ("The same request is still running.", "同一请求仍在处理。"),
        wait=AT_ONCE,
    ),
    "sale_state_conflict": _kind(
        409,
        ("Sale state conflict", "活动状态冲突"),
        ("The sale's state does not allow that.", "活动当前状态不允许此操作。"),
    ),
    "approval_required": _kind(
        409,
        ("Approval required", "需要审批"),
        ("A second person must approve that.", "此操作需要他人审批。"),
    ),
    "body_too_large": _kind(
        413,
        ("Body too large", "请求体过大"),
        ("The body is larger than allowed.", "请求体超过上限。"),
    ),
    "unsupported_media_type": _kind(
        415,
        ("Unsupported media type", "不支持的媒体类型"),
        ("Send application/json in UTF-8.", "请使用 UTF-8 的 application/json。"),
    ),
    "validation_failed": _kind(
        422,
        ("Validation failed", "校验失败"),
        ("See errors.", "详见 errors。"),
    ),
    "idempotency_mismatch": _kind(
        422,
        ("Idempotency mismatch", "幂等键冲突"),
        ("This key was used with other content.", "该幂等键已用于其他内容。"),
    ),
    "too_many_requests": _kind(
        429,
        ("Too many requests", "请求过于频繁"),
        ("You are asking too fast.", "请求过于频繁,请稍后再试。"),
        wait=WHILE_RECOVERING,
    ),
    "header_too_large": _kind(
        431,
        ("Header too large", "请求头过大"),
        ("The request line or headers are too large.", "请求行或请求头过大。"),
    ),
    "internal_error": _kind(
        500,
        ("Internal error", "内部错误"),
        ("Something broke here; repeat with the same key.", "服务出错,请用同一幂等键重试。"),
        retryable=True,
    ),
    "recovering": _kind(
        503,
        ("Recovering", "恢复中"),
        ("This sale is recovering.", "活动正在恢复。"),
        wait=WHILE_RECOVERING,
    ),
    "overloaded": _kind(
        503,
        ("Overloaded", "系统繁忙"),
        ("The service is too busy.", "系统繁忙,请稍后再试。"),
        wait=WHILE_OVERLOADED,
    ),
    "backlog_full": _kind(
        503,
        ("Backlog full", "排队已满"),
        ("Too many orders are waiting to be written.", "等待写入的订单过多。"),
        wait=WHILE_OVERLOADED,
    ),
    "outcome_unknown": _kind(
        503,
        ("Outcome unknown", "结果未知"),
        ("It may have been done; repeat with the same key.", "结果未知,请用同一幂等键重试。"),
        wait=AT_ONCE,
    ),
    "shard_unavailable": _kind(
        503,
        ("Storage unavailable", "存储不可用"),
        ("A part of the storage does not answer.", "部分存储暂不可用。"),
        wait=WHILE_RECOVERING,
    ),
    "seal_key_missing": _kind(
        503,
        ("Key missing", "缺少密钥"),
        (
            "A personal field is sealed under a key that is not configured.",
            "未配置个人信息的密钥。",
        ),
        wait=WHILE_RECOVERING,
    ),
}
