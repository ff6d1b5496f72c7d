"""How a sale looks from outside: to shoppers, and to operators."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec

from app.sales.policy import PolicyTerms, Refundable, ReviewRule
from app.sales.sale import LeaderPolicy, Sale, StockBand

Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]


class GroupRules(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the groups of a group sale form."""

    size: Annotated[int, msgspec.Meta(ge=2, le=100)]
    window_seconds: Annotated[int, msgspec.Meta(ge=6, le=604_800)] = 86_400
    leader_leaves: LeaderPolicy = LeaderPolicy.HAND_OVER
    rescue_seconds: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 0


class PolicyRules(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """
    What a merchant decides about paid orders.

    The body of `PUT /admin/v1/sales/{sale}/policy`, all of it every time, and a part of
    `POST /admin/v1/sales`.
    """

    refundable: Refundable = Refundable.NONE
    refund_window_seconds: Seconds | None = None
    review: ReviewRule = ReviewRule.NONE
    review_from_minor: Annotated[int, msgspec.Meta(ge=1, le=10**15)] | None = None
    confirm_after_seconds: Seconds = 864_000

    def terms(self) -> PolicyTerms:
        """Return what is decided, without what else a body says."""
        return PolicyTerms(
            refundable=self.refundable,
            refund_window_seconds=self.refund_window_seconds,
            review=self.review,
            review_from_minor=self.review_from_minor,
            confirm_after_seconds=self.confirm_after_seconds,
        )


class SaleList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sales, newest first; `next` is null at the end."""

    items: list["PublicSale"]
    next: str | None


class PublicSale(msgspec.Struct, frozen=True, kw_only=True):
    """A sale as a shopper sees it."""

    id: str
    kind: str
    title: str
    sku: str
    price_minor: int
    currency: str
    limit_per_shopper: int
    state: str
    opens_at: datetime
    closes_at: datetime
    pay_within_seconds: int
    stock_band: str | None
    refundable: Refundable
    refund_window_seconds: int | None
    group: GroupRules | None = None


class AdminSale(PolicyRules, forbid_unknown_fields=False, frozen=True, kw_only=True):
    """A sale as an operator sees it, with its policy."""

    id: str
    number: int
    kind: str
    title: str
    sku: str
    merchant: str
    price_minor: int
    currency: str
    stock_total: int
    pool: int
    limit_per_shopper: int
    state: str
    state_reason: str | None
    opens_at: datetime
    closes_at: datetime
    pay_within_seconds: int
    buckets: int
    group: GroupRules | None = None
    warnings: list[str] = []


class AdminSaleList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sales, drafts too; `next` is null at the end."""

    items: list[AdminSale]
    next: str | None


def _group_rules(sale: Sale) -> GroupRules | None:
    return GroupRules(**asdict(sale.group)) if sale.group else None


def public_view(sale: Sale, now: datetime, band: StockBand | None) -> PublicSale:
    """Describe a sale to shoppers."""
    return PublicSale(
        id=sale.id,
        kind=sale.kind,
        title=sale.title,
        sku=sale.sku,
        price_minor=sale.price_minor,
        currency=sale.currency,
        limit_per_shopper=sale.limit_per_shopper,
        state=sale.view_at(now),
        opens_at=sale.opens_at,
        closes_at=sale.closes_at,
        pay_within_seconds=sale.pay_within_seconds,
        stock_band=band,
        refundable=sale.policy.refundable,
        refund_window_seconds=sale.policy.refund_window_seconds,
        group=_group_rules(sale),
    )


def admin_view(sale: Sale, now: datetime, warnings: list[str] | None = None) -> AdminSale:
    """Describe a sale to operators."""
    return AdminSale(
        id=sale.id,
        number=sale.number,
        kind=sale.kind,
        title=sale.title,
        sku=sale.sku,
        merchant=sale.merchant,
        price_minor=sale.price_minor,
        currency=sale.currency,
        stock_total=sale.stock_total,
        pool=sale.pool,
        limit_per_shopper=sale.limit_per_shopper,
        state=sale.view_at(now),
        state_reason=sale.state_reason,
        opens_at=sale.opens_at,
        closes_at=sale.closes_at,
        pay_within_seconds=sale.pay_within_seconds,
        buckets=sale.buckets,
        group=_group_rules(sale),
        warnings=warnings or [],
        **asdict(sale.policy),
    )
