"""
Payers and keys, planted at the gateways, are found nowhere on our side after whole journeys.

The gateway knows who pays; what it says of them in callbacks and answers must not
come to rest in a row, a log, an error, a view, a metric or Redis, in no spelling.
"""

import base64
import hashlib
import json
import secrets
from typing import Final

import pytest

from tests.journeys.test_gateways import PRICE, SECONDS, Till
from tests.journeys.test_personal import everything_in_postgres, everything_in_redis
from tests.waiting import eventually

LOGON_ID: Final = "san***@example.com"
SECRETS: Final = ("private_key", "api_v3_key")


def spellings(word: str) -> list[bytes]:
    """A word as it is, as Postgres shows bytes, and in base64 wherever it may begin."""
    plain = word.encode()
    packed = [base64.b64encode(b"\0" * skip + plain)[4 if skip else 0 : -4] for skip in range(3)]
    return [plain, plain.hex().encode(), *packed]


def test_no_spelling_hides_a_word() -> None:
    for before in range(4):
        text = b"x" * before + b"oPlanted0123456789" + b"yyy"
        for shown in (text, text.hex().encode(), base64.b64encode(text)):
            assert any(one in shown for one in spellings("oPlanted0123456789")), shown


def keys_of(data_dir) -> list[str]:
    """Return what is secret of the payment keys: the middle lines of PEMs, and plain keys."""
    found = []

    def look(document) -> None:
        for name, value in document.items():
            if isinstance(value, dict):
                look(value)
            elif name in SECRETS:
                lines = value.splitlines()
                found.append(lines[len(lines) // 2])

    look(json.loads((data_dir / "payment_keys.json").read_text()))
    return found


class Payer:
    """Somebody whom a gateway knows by a name that is looked for afterwards."""

    def __init__(self, shop, till):
        self.shop = shop
        self.till = till
        self.names = []
        self.seen = []

    async def start(self, order_id, **wish):
        """Start a payment; over WeChat Pay inside the wallet, where we are told who pays."""
        if self.till.provider == "wechatpay":
            wish = {"product": "jsapi", "payer_id": f"oPlanted{secrets.token_hex(10)}", **wish}
        else:
            wish = {"product": "qr", **wish}
        answer = await self.shop.start_payment(order_id, "ann", provider=self.till.provider, **wish)
        self.seen.append(json.dumps(answer.body))
        number = answer.body.get("payment_id", "")
        # Alipay's side makes its buyer up from the number.
        made_up = int.from_bytes(hashlib.sha256(number.encode()).digest()) % 10**12
        self.names.append(wish.get("payer_id") or f"2088{made_up:012d}")
        return answer

    async def opened(self, order_id):
        number = (await self.start(order_id)).body["payment_id"]
        await self.shop.play(number, outcome="scan")
        return number


@pytest.fixture(params=["wechatpay", "alipay"])
async def payer(request, shop):
    sale = await shop.open_sale(price_minor=PRICE, limit_per_shopper=9)
    return Payer(shop, Till(shop, sale, request.param))


async def test_payers_and_keys_are_nowhere_in_clear(payer, shop, service, promises):
    orders = await live_through_everything(payer, shop)
    seen = [*payer.seen, *[json.dumps((await shop.order(one, "ann")).body) for one in orders]]
    seen += [json.dumps(await shop.read(f"/orders/{one}")) for one in orders]
    logs = [*service.data_dir.rglob("*.log"), *service.data_dir.glob("*.err")]
    run = service.run
    words = [*payer.names, LOGON_ID, *keys_of(service.data_dir)]
    assert len(words) >= 4 + 1 + 6
    for where, text in {
        "views and refusals": " ".join(seen).encode(),
        "logs": b"".join(path.read_bytes() for path in logs),
        "redis": await everything_in_redis(run.redis),
        "postgres": await everything_in_postgres((*run.shards, run.ledger)),
        "metrics": (await shop.text_at(f"{run.admin}/metrics")).encode(),
    }.items():
        found = [word for word in words for one in spellings(word) if one in text]
        assert found == [], where
    await promises.hold()


async def live_through_everything(payer, shop) -> list[str]:
    """Pay, be refunded, be lied to, pay late, and be refused; return the orders."""
    till = payer.till
    paid, lied, late, refused = [await till.order() for _ in range(4)]
    await shop.play(await payer.opened(paid), outcome="pay", callback="twice")
    await shop.until_order(paid, "ann", "paid")
    body = {"reason": "goodwill", "amount_minor": PRICE}
    assert (await shop.operate("POST", f"/orders/{paid}/refunds", body)).status == 201
    await shop.until_order(paid, "ann", "refunded")

    liar = await payer.opened(lied)
    await shop.play(liar, outcome="pay", amount_minor=PRICE - 1)
    await shop.play(liar, outcome="pay", callback="forged")
    await shop.play(liar, outcome="pay")
    await shop.until_order(lied, "ann", "paid")

    number = await payer.opened(late)
    await shop.cancel(late, "ann")
    await shop.until_order(late, "ann", "closed")
    await shop.play(number, outcome="pay")
    await _until_refunded(till, late)

    # What is wrong with a payer is said without the payer.
    names = [f"planted payer {secrets.token_hex(6)}", f"oPlanted{'x' * 128}"]
    for name in names:
        answer = await payer.start(refused, payer_id=name)
        assert answer.status == 422, answer
    return [paid, lied, late]


async def _until_refunded(till, order_id) -> None:
    async def look():
        return [one["status"] for one in await till.refunds(order_id)] == ["succeeded"]

    await eventually(look, within_seconds=SECONDS)
