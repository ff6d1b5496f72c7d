"""What the tests of this stage act on and look at."""

import base64
import json
from typing import Final

from app.fulfilment.addresses import Addresses
from app.fulfilment.claims import Claims
from app.fulfilment.parcels import Parcels
from app.fulfilment.policy import Policy
from app.fulfilment.policy_store import set_policy
from app.fulfilment.seals import FieldSeals, read_seal_keys
from app.kernel.ids import OrderKey
from app.sales.policy import Refundable, ReviewRule
from tests.stores.payments.desk import Desk

INSERT_SALE: Final = """
INSERT INTO sales (sale, id, kind, title, sku, merchant, price_minor, currency, stock_total, pool,
                   limit_per_shopper, opens_at, closes_at, pay_within_seconds, buckets, state)
VALUES (1, 'spring', 'seckill', 'Spring', 'tea', 'acme', 8880, 'CNY', 100, 0, 2,
        now() - interval '1 hour', now() + interval '1 hour', 900, 1, 'published')"""
EVENTS: Final = """
SELECT event FROM order_events WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4)
ORDER BY number"""


class Scene:
    """Acts over both shards of a test; orders come from the desk of payments."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.shards = desk.stage.shards
        self.parcels = Parcels(self.shards)
        self.claims = Claims(self.shards)
        self.addresses = self.addresses_with("a:seal")

    async def write_sale(self) -> None:
        async with self.shards.home(1).connection() as connection:
            await connection.execute(INSERT_SALE)

    def addresses_with(self, *keys: str) -> Addresses:
        """Make the sealed fields' acts with keys written as `kid:use`; a kid names its bytes."""
        listed = [
            {
                "kid": kid,
                "key": base64.urlsafe_b64encode(kid.encode() * 32).decode(),
                "use": use,
            }
            for kid, use in (key.split(":") for key in keys)
        ]
        return Addresses(self.shards, FieldSeals(read_seal_keys(json.dumps(listed))))

    async def policy(self, **terms: object) -> None:
        plain = {
            "refundable": Refundable.NONE,
            "refund_window_seconds": None,
            "review": ReviewRule.NONE,
            "review_from_minor": None,
            "confirm_after_seconds": 60,
        }
        await set_policy(self.shards.home(1), 1, "spring", Policy(**{**plain, **terms}), "test")

    async def paid(self) -> OrderKey:
        key = await self.desk.place()
        attempt = await self.desk.start(key)
        raw = self.desk.callback(self.desk.message(attempt), f"evt-{attempt.number}")
        assert (await self.desk.receive(raw)).status == 200
        return key

    async def events(self, key: OrderKey) -> list[str]:
        return [row["event"] for row in await self.desk.rows(EVENTS, *key)]
