"""Real shards, a real ledger, and the house's three ways to pay beside the sandbox."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from app.payments.provider import Product
from app.payments.stage import Providers
from app.payments.start import start_payment
from app.sales.store import Act
from app.settlement.house.bank_lines import BankDesk
from app.settlement.house.desk import House, Proof
from app.settlement.house.line_store import NewLine
from app.settlement.house.provider import open_house
from app.settlement.house.rules import find_codes
from app.settlement.poster import SettlementSettings, post_once
from tests.stores.payments.desk import open_desk

PRICE_MINOR = 8_880
ACT = Act(actor="olga", reason="test")


@dataclass
class HouseScene:
    desk: object
    ledger: object
    stage: object

    @property
    def house(self):
        return House(self.ledger, self.stage)

    @property
    def bank(self):
        return BankDesk(self.house)

    async def start(self, provider, *, key=None, idempotency_key="key-0123456789abcdef"):
        key = await self.desk.place() if key is None else key
        wish = self.desk.wish(
            key, provider=provider, product=Product.DIRECT, idempotency_key=idempotency_key
        )
        return key, await start_payment(self.stage, wish)

    async def top_up(self, amount_minor, key="top-up-0123456789ab", shopper="ann"):
        return await self.house.top_up(key, shopper, (amount_minor, "CNY"), ACT)

    async def bring(self, *lines, key="import-0123456789ab"):
        return await self.bank.import_lines(key, lines, ACT)

    def line(self, reference, amount_minor, remark, currency="CNY"):
        return NewLine(
            reference=reference,
            amount_minor=amount_minor,
            currency=currency,
            codes=find_codes(remark),
            booked_at=self.stage.now() - timedelta(minutes=1),
        )

    def proof(self, reference="slip-1"):
        return Proof(reference=reference, note="cash at the desk", actor="olga")

    async def order_state(self, key):
        return (
            await self.desk.rows(
                "SELECT state::text AS state FROM orders WHERE sale = $1 AND bucket = $2"
                " AND epoch = $3 AND seq = $4",
                *key,
            )
        )[0]["state"]

    async def books(self):
        """Post every fact, and return what is on each account, on its normal side."""
        await post_once(self.stage.shards, self.ledger, SettlementSettings())
        async with self.ledger.connection() as connection:
            rows = await connection.fetch(
                "SELECT code, CASE normal_side WHEN 'debit' THEN debits_posted - credits_posted"
                " ELSE credits_posted - debits_posted END AS balance FROM ledger_accounts"
            )
        return {row["code"]: row["balance"] for row in rows}

    async def rows(self, query, *values):
        async with self.ledger.connection() as connection:
            return await connection.fetch(query, *values)


@pytest.fixture
async def scene(shards, ledger_database, tmp_path):
    async with open_desk(shards, tmp_path) as desk:
        providers = Providers(open_house(ledger_database, desk.clock, "CN00 1234"))
        yield HouseScene(desk, ledger_database, desk.stage_with(providers))
