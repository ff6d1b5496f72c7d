"""A sale: its terms, and how its state reads at an instant; pure."""

import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.kernel.machine import Machine
from app.kernel.money import EXPONENTS
from app.sales.policy import PolicyTerms, faults_of_policy

SALE_ID: Final = re.compile(r"[a-z0-9-]{1,40}")
WINDOW_MAX: Final = timedelta(days=400)
BUCKETS_MAX: Final = 64
JOIN_ENDS_BEFORE_SECONDS: Final = 5  # a group takes nobody in its last seconds (place_group_orders)
PLENTY_SHARE: Final = 0.2  # more than this share of the stock left reads as `plenty`


class SaleKind(StrEnum):
    """How a sale sells."""

    SECKILL = "seckill"
    GROUP = "group"
    ORDINARY = "ordinary"


class LeaderPolicy(StrEnum):
    """What becomes of a group whose leader's order ends unpaid."""

    HAND_OVER = "hand_over"  # the member who joined first leads from then on
    FAIL_GROUP = "fail_group"


class SaleState(StrEnum):
    """What the row says; the shopper's view adds the clock (`state_at`)."""

    DRAFT = "draft"
    PUBLISHED = "published"
    PAUSED = "paused"
    CLOSED = "closed"


class SaleEvent(StrEnum):
    """What an operator does to a sale."""

    PUBLISH = "publish"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"


SALE_MACHINE: Final = Machine(
    name="sale",
    start=SaleState.DRAFT,
    moves={
        (SaleState.DRAFT, SaleEvent.PUBLISH): SaleState.PUBLISHED,
        (SaleState.DRAFT, SaleEvent.CLOSE): SaleState.CLOSED,
        (SaleState.PUBLISHED, SaleEvent.PAUSE): SaleState.PAUSED,
        (SaleState.PUBLISHED, SaleEvent.CLOSE): SaleState.CLOSED,
        (SaleState.PAUSED, SaleEvent.RESUME): SaleState.PUBLISHED,
        (SaleState.PAUSED, SaleEvent.CLOSE): SaleState.CLOSED,
    },
)

ALREADY_DONE: Final = {
    SaleEvent.PUBLISH: (SaleState.PUBLISHED, SaleState.PAUSED),
    SaleEvent.PAUSE: (SaleState.PAUSED,),
    SaleEvent.RESUME: (SaleState.PUBLISHED,),
    SaleEvent.CLOSE: (SaleState.CLOSED,),
}
"""Where an event has no effect left, so that repeating it answers 200."""


class SaleView(StrEnum):
    """What shoppers are told (docs/INTERFACES.md §1)."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    ENDED = "ended"
    CLOSED = "closed"


class StockBand(StrEnum):
    """How much is left, without telling how much."""

    PLENTY = "plenty"
    FEW = "few"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTerms:
    """How the groups of a group sale form."""

    size: int  # seats, 2..100; each order takes one
    window_seconds: int  # from the order that opens a group until it fails
    leader_leaves: LeaderPolicy = LeaderPolicy.HAND_OVER
    rescue_seconds: int = 0  # before its end an incomplete group is merged with others; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleTerms:
    """What a merchant decides; fixed at publish, but for the policy."""

    id: str
    kind: SaleKind
    title: str
    sku: str
    merchant: str
    stock: int
    price_minor: int
    currency: str
    limit_per_shopper: int
    opens_at: datetime
    closes_at: datetime
    pay_within_seconds: int
    buckets: int
    policy: PolicyTerms = field(default_factory=PolicyTerms)
    group: GroupTerms | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One row of `sales`."""

    number: int
    id: str
    kind: SaleKind
    title: str
    sku: str
    merchant: str
    price_minor: int
    currency: str
    stock_total: int
    pool: int
    limit_per_shopper: int
    opens_at: datetime
    closes_at: datetime
    pay_within_seconds: int
    buckets: int
    policy: PolicyTerms
    state: SaleState
    state_reason: str | None
    published_at: datetime | None
    closed_at: datetime | None
    group: GroupTerms | None = None

    @property
    def ends_at(self) -> datetime:
        """When selling ended or will end: at closes_at, or earlier if it was closed."""
        return min(self.closes_at, self.closed_at or self.closes_at)

    def view_at(self, now: datetime) -> SaleView:
        """Say how the sale reads to a shopper at an instant of the selling clock."""
        if self.state in {SaleState.DRAFT, SaleState.CLOSED}:
            return SaleView(self.state.value)
        if now >= self.closes_at:
            return SaleView.ENDED
        if self.state == SaleState.PAUSED:
            return SaleView.PAUSED
        return SaleView.SCHEDULED if now < self.opens_at else SaleView.OPEN


def stock_band(available: int, stock_total: int) -> StockBand:
    """Say how much is left in one of three words."""
    if available <= 0:
        return StockBand.GONE
    return StockBand.PLENTY if available > stock_total * PLENTY_SHARE else StockBand.FEW


def id_from_title(title: str) -> str:
    """
    Make an id from a title, with a random tail so that two sales may share a title.

    A title without Latin letters or digits gives `sale-` and the tail.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:32].strip("-")
    return f"{words or 'sale'}-{secrets.token_hex(3)}"


def faults_of_terms(
    terms: SaleTerms, *, pay_within_seconds_min: int, group_window_seconds_min: int
) -> list[tuple[str, str]]:
    """
    Return every rule that the terms break, as (path, message).

    Bounds of single fields are the request's own (routes); these are the rules
    that need a table or two fields at once.
    """
    faults = []
    if not SALE_ID.fullmatch(terms.id):
        faults.append(("$.id", "must be 1 to 40 of a-z, 0-9 and -"))
    if terms.currency not in EXPONENTS:
        faults.append(("$.currency", f"must be one of {', '.join(sorted(EXPONENTS))}"))
    if terms.closes_at <= terms.opens_at:
        faults.append(("$.closes_at", "must be after opens_at"))
    elif terms.closes_at - terms.opens_at > WINDOW_MAX:
        faults.append(("$.closes_at", "must be at most 400 days after opens_at"))
    if terms.pay_within_seconds < pay_within_seconds_min:
        faults.append(("$.pay_within_seconds", f"must be at least {pay_within_seconds_min}"))
    if terms.buckets > terms.stock:
        faults.append(("$.buckets", "must not exceed stock"))
    if terms.kind == SaleKind.ORDINARY:
        faults.append(("$.kind", "ordinary sales cannot be created yet"))
    return (
        faults + faults_of_policy(terms.policy) + _faults_of_groups(terms, group_window_seconds_min)
    )


def _faults_of_groups(terms: SaleTerms, window_seconds_min: int) -> list[tuple[str, str]]:
    """Return what the terms of groups break; a group sale keeps one bucket."""
    group = terms.group
    if (terms.kind == SaleKind.GROUP) != (group is not None):
        return [("$.group", "belongs to sales of kind group, and to each of them")]
    if group is None:
        return []
    faults = []
    if terms.buckets != 1:
        faults.append(("$.buckets", "must be 1 for a group sale"))
    if group.size > terms.stock:
        faults.append(("$.group.size", "must not exceed stock"))
    if group.window_seconds < window_seconds_min:
        faults.append(("$.group.window_seconds", f"must be at least {window_seconds_min}"))
    if group.rescue_seconds and not (
        JOIN_ENDS_BEFORE_SECONDS < group.rescue_seconds <= group.window_seconds // 2
    ):
        faults.append(("$.group.rescue_seconds", "must be 0, or 6 to half of the group's window"))
    return faults


def warnings_of_terms(terms: SaleTerms, now: datetime) -> list[str]:
    """Return what a careful merchant would want to be told; nothing is refused."""
    warnings = []
    if terms.opens_at <= now:
        warnings.append("opens_at has passed: the sale opens as soon as it is published")
    if terms.stock < terms.limit_per_shopper:
        warnings.append("one shopper may buy the whole stock")
    if terms.closes_at - terms.opens_at < timedelta(minutes=1):
        warnings.append("the sale is open for less than a minute")
    if terms.pay_within_seconds > (terms.closes_at - terms.opens_at).total_seconds():
        warnings.append("units of unpaid orders come back only after the sale has closed")
    return warnings
