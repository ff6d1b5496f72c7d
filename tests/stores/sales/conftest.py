"""What a merchant asks for."""

from datetime import UTC, datetime, timedelta

import pytest

from app.sales.sale import SaleKind, SaleTerms


@pytest.fixture
def terms() -> SaleTerms:
    """A sale of 100 units that is open for an hour."""
    now = datetime.now(UTC).replace(microsecond=0)
    return SaleTerms(
        id="spring",
        kind=SaleKind.SECKILL,
        title="Spring",
        sku="tea",
        merchant="acme",
        stock=100,
        price_minor=8_880,
        currency="CNY",
        limit_per_shopper=2,
        opens_at=now - timedelta(minutes=1),
        closes_at=now + timedelta(hours=1),
        pay_within_seconds=900,
        buckets=2,
    )
