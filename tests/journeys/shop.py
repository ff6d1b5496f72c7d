"""The service as its clients see it: shoppers, an operator, a payer, over HTTP alone."""

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import aiohttp

from app.embedded.run_file import RunFile
from loadtest.tokens import Signer
from tests.waiting import eventually

CONNECTIONS_MAX: Final = 64
ANSWER_SECONDS: Final = 30.0
REST_SECONDS: Final = 30.0  # until nothing is under way any more


class Answer(NamedTuple):
    """One reply; `body` is its JSON document, None for an empty one."""

    status: int
    headers: Any  # a case-insensitive mapping
    body: Any

    @property
    def code(self) -> str:
        """The code of a refusal, empty for anything else."""
        return "" if self.status < 400 else self.body["code"]


class Shop:
    """Everybody's view of one running service."""

    def __init__(self, session: aiohttp.ClientSession, run: RunFile) -> None:
        self._session = session
        self.run = run
        self._signer = Signer.from_keys(run.auth_keys)
        self._created: list[str] = []

    async def ask(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        body: object = None,
        **headers: str,
    ) -> Answer:
        """Send one request; header names have underscores for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with self._session.request(method, url, headers=sent, json=body) as response:
            raw = await response.read()
            return Answer(response.status, response.headers, json.loads(raw) if raw else None)

    async def text_at(self, url: str) -> str:
        """Read what is no JSON, such as metrics."""
        async with self._session.get(url) as response:
            assert response.status == 200, url
            return await response.text()

    def token(self, shopper: str) -> str:
        return self._signer.sign(shopper)

    async def place(
        self,
        sale: str,
        shopper: str,
        key: str | None = None,
        body: object = None,
        **headers: str,
    ) -> Answer:
        """Click once; without a key it is a new wish."""
        return await self.ask(
            "POST",
            f"{self.run.public}/v1/sales/{sale}/orders",
            token=self.token(shopper),
            body=body,
            Idempotency_Key=key or new_key(),
            **headers,
        )

    async def insist(self, sale: str, shopper: str) -> Answer:
        """Click as a good client does: with one key, until there is a final answer."""
        key = new_key()
        answers: list[Answer] = []

        async def click() -> bool:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                answers.append(await self.place(sale, shopper, key))
            return bool(answers) and answers[-1].status < 500

        await eventually(click, within_seconds=REST_SECONDS)
        return answers[-1]

    async def buy(self, sale: str, shopper: str, **body: object) -> dict[str, Any]:
        """Place an order and wait for its row."""
        answer = await self.place(sale, shopper, body=body, Prefer="wait=5")
        assert answer.status == 201, answer
        return answer.body

    async def place_many(
        self, sale: str, shoppers: Sequence[str], key: str | None = None
    ) -> list[Answer]:
        """Let many click at the same time; with `key` all use this one."""
        return await asyncio.gather(*(self.place(sale, one, key) for one in shoppers))

    async def order(self, order_id: str, shopper: str) -> Answer:
        return await self.ask(
            "GET", f"{self.run.public}/v1/orders/{order_id}", token=self.token(shopper)
        )

    async def orders(self, shopper: str, query: str = "") -> dict[str, Any]:
        answer = await self.ask(
            "GET", f"{self.run.public}/v1/orders{query}", token=self.token(shopper)
        )
        assert answer.status == 200, answer
        return answer.body

    async def cancel(self, order_id: str, shopper: str) -> Answer:
        return await self.ask(
            "POST", f"{self.run.public}/v1/orders/{order_id}/cancel", token=self.token(shopper)
        )

    async def until_order(self, order_id: str, shopper: str, *states: str) -> dict[str, Any]:
        """Wait until an order has one of these states."""

        async def look() -> dict[str, Any] | None:
            answer = await self.order(order_id, shopper)
            return answer.body if answer.status == 200 and answer.body["status"] in states else None

        return await eventually(look, within_seconds=REST_SECONDS)

    async def start_payment(
        self, order_id: str, shopper: str, key: str | None = None, **wish: str
    ) -> Answer:
        """Start a payment, at the sandbox unless `wish` names another provider or product."""
        return await self.ask(
            "POST",
            f"{self.run.public}/v1/orders/{order_id}/payments",
            token=self.token(shopper),
            body={"provider": "sandbox", "product": "qr", **wish},
            Idempotency_Key=key or new_key(),
        )

    async def play(self, payment_id: str, **what: object) -> None:
        """Tell the sandbox gateway what the shopper and the provider do."""
        answer = await self.ask(
            "POST", f"{self.run.sandbox}/control/payments/{payment_id}", body=what
        )
        assert answer.status == 202, answer

    async def pay(self, order_id: str, shopper: str, **what: object) -> str:
        """Start a payment and play it; return its number."""
        started = await self.start_payment(order_id, shopper)
        assert started.status == 201, started
        await self.play(started.body["payment_id"], **{"outcome": "pay", **what})
        return started.body["payment_id"]

    async def operate(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Ask the admin listener as its operator; `path` without the prefix /admin/v1."""
        if method == "POST":
            headers.setdefault("Idempotency_Key", new_key())
        url = f"{self.run.admin}/admin/v1{path}"
        return await self.ask(method, url, token=self.run.admin_token, body=body, **headers)

    async def read(self, path: str) -> Any:
        answer = await self.operate("GET", path)
        assert answer.status == 200, answer
        return answer.body

    async def create_sale(self, **terms: object) -> str:
        """Make a draft with an id of its own; terms that are not given are plain ones."""
        body = {
            "id": f"sale-{secrets.token_hex(5)}",
            "title": "A thing",
            "stock": 10,
            "price_minor": 1_999,
            "limit_per_shopper": 1,
            **terms,
        }
        answer = await self.operate("POST", "/sales", body)
        assert answer.status == 201, answer
        self._created.append(str(body["id"]))
        return self._created[-1]

    async def close_sales(self) -> None:
        """End every sale made here, whatever became of it: an open one is work for ever."""
        for sale in self._created:
            answer = await self.operate("POST", f"/sales/{sale}/close", {"reason": "over"})
            assert answer.status in {200, 409}, answer

    async def open_sale(self, **terms: object) -> str:
        """Make and publish a sale, and wait until its buckets sell."""
        sale = await self.create_sale(**terms)
        published = await self.operate("POST", f"/sales/{sale}/publish", {})
        assert published.status == 200, published
        await self.until_sells(sale)
        return sale

    async def until_sells(self, sale: str, epoch_min: int = 1) -> None:
        """Wait until every bucket of a sale is open, in this epoch or a later one, and answers."""

        async def is_open() -> bool:
            stock = await self.operate("GET", f"/sales/{sale}/stock")
            return stock.status == 200 and all(
                one["state"] == "open" and one["epoch"] >= epoch_min
                for one in stock.body["buckets"] or [{"state": "none"}]
            )

        async def answers() -> bool:
            """Ask for more than anybody may have: nothing is written."""
            return (await self.place(sale, "nobody", body={"quantity": 1_000})).status != 503

        await eventually(is_open, within_seconds=REST_SECONDS)
        await eventually(answers, within_seconds=REST_SECONDS)

    async def stock(self, sale: str) -> dict[str, Any]:
        return await self.read(f"/sales/{sale}/stock")

    async def until_stock(self, sale: str, **numbers: int) -> None:
        """Wait until these numbers are reached."""

        async def look() -> bool:
            stock = await self.stock(sale)
            return all(stock[name] == number for name, number in numbers.items())

        await eventually(look, within_seconds=REST_SECONDS)

    async def until_units_rest(self, sale: str) -> None:
        """Wait until every unit granted to a bucket is on its server, or with an order."""

        async def look() -> bool:
            stock = await self.stock(sale)
            moving = (stock["pool"], stock["in_transit"], stock["unflushed"], stock["returning"])
            left = stock["remaining"]
            return not any(moving) and left == stock["granted"] - stock["reserved"]

        await eventually(look, within_seconds=REST_SECONDS)

    async def queue(self, sale: str) -> dict[str, Any]:
        """Read the one queue of a sale with one bucket."""
        found = [one for one in (await self.read("/queues"))["queues"] if one["sale"] == sale]
        assert len(found) == 1, found
        return found[0]

    async def until_flushed(self, sale: str) -> None:
        async def look() -> bool:
            return (await self.queue(sale))["orders"] == 0

        await eventually(look, within_seconds=REST_SECONDS)

    async def orders_of_sale(self, sale: str) -> list[dict[str, Any]]:
        """Read every order of a sale that has a row, as an operator."""
        found: list[dict[str, Any]] = []
        query = f"/orders?sale={sale}&limit=100"
        while True:
            page = await self.read(query)
            found += page["items"]
            if page["next"] is None:
                return found
            query = f"/orders?sale={sale}&limit=100&cursor={page['next']}"

    async def books_balance(self) -> bool:
        books = (await self.read("/ledger/trial-balance"))["items"]
        return all(one["balanced"] and one["difference_minor"] == 0 for one in books)


class Promises:
    """The service's own audit, and what it said last."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._last: list[dict[str, Any]] = []

    async def hold(self) -> None:
        """Wait until nothing is under way, and every equation of the audit holds."""
        try:
            await eventually(self._all_hold, within_seconds=REST_SECONDS)
        except AssertionError:
            broken = [one for one in self._last if one["holds"] is not True]
            raise AssertionError(json.dumps(broken, indent=1)) from None

    async def _all_hold(self) -> bool:
        answer = await self._shop.operate("GET", "/audit")
        if answer.status != 200:
            self._last = [{"holds": None, "answer": answer}]
            return False
        self._last = answer.body["equations"]
        return bool(self._last) and all(one["holds"] is True for one in self._last)


@contextlib.asynccontextmanager
async def visit(run: RunFile) -> AsyncIterator[Shop]:
    """Open a shop's doors for one test."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Shop(session, run)


def new_key() -> str:
    return secrets.token_hex(16)


def names(prefix: str, count: int) -> list[str]:
    """Make up shoppers."""
    return [f"{prefix}-{number}" for number in range(count)]


def codes(answers: Sequence[Answer]) -> Counter[str]:
    """Count answers by the code of their refusal, successes by their status."""
    return Counter(answer.code or str(answer.status) for answer in answers)


def ids(answers: Sequence[Answer]) -> set[str]:
    """Collect the orders that were told."""
    return {answer.body["order_id"] for answer in answers if answer.status < 300}


def in_seconds(seconds: float) -> str:
    """Write an instant as RFC 3339, so many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
