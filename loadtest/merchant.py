"""The admin routes that a run needs: make a sale, look at stock, queues, books and audit."""

import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from loadtest.client import Client, bearer, document
from loadtest.errors import Refused
from loadtest.history import SaleTerms


class Merchant:
    """Speaks to the admin listener as an operator."""

    def __init__(self, url: str, token: str) -> None:
        self._client = Client(url, connections_max=4, timeout_seconds=30.0)
        self._authorization = bearer(token)

    def close(self) -> None:
        self._client.close()

    async def open_sale(
        self,
        terms: SaleTerms,
        *,
        title: str,
        opens_at: datetime,
        pay_within_seconds: int,
    ) -> None:
        """
        Create and publish a sale that is open for an hour.

        Raises:
            Refused: it was not created or not published.
        """
        body: dict[str, Any] = {
            "id": terms.sale,
            "kind": "seckill" if terms.group is None else "group",
            "title": title,
            "sku": f"sku-{terms.sale}",
            "merchant": "demo",
            "stock": terms.stock,
            "price_minor": terms.price_minor,
            "currency": terms.currency,
            "limit_per_shopper": terms.limit_per_shopper,
            "opens_at": instant(opens_at),
            "closes_at": instant(opens_at + timedelta(hours=1)),
            "pay_within_seconds": pay_within_seconds,
        }
        if terms.group is not None:
            body["group"] = terms.group._asdict()
        await self._post("/admin/v1/sales", body)
        path = f"/admin/v1/sales/{terms.sale}/publish"
        await self._post(path, {"reason": "load run"})

    async def stock(self, sale: str) -> dict[str, Any]:
        """Read GET /admin/v1/sales/{sale}/stock."""
        return await self._get(f"/admin/v1/sales/{sale}/stock")

    async def queues(self) -> dict[str, Any]:
        """Read GET /admin/v1/queues."""
        return await self._get("/admin/v1/queues")

    async def backlog(self, sales: Collection[str]) -> int:
        """Count the accepted orders of these sales that have no row; unreadable queues count 1."""
        queues = (await self.queues())["queues"]
        orders = (queue["orders"] for queue in queues if queue["sale"] in sales)
        return sum(1 if waiting is None else waiting for waiting in orders)

    async def is_ready(self, sales: Collection[str]) -> bool:
        """Whether the bucket of each of these sales is open (its sale may open later)."""
        queues = (await self.queues())["queues"]
        return {queue["sale"] for queue in queues if queue["state"] == "open"} >= set(sales)

    async def audit(self) -> dict[str, Any]:
        """Read GET /admin/v1/audit."""
        return await self._get("/admin/v1/audit")

    async def trial_balance(self) -> dict[str, Any]:
        """Read GET /admin/v1/ledger/trial-balance."""
        return await self._get("/admin/v1/ledger/trial-balance")

    async def _get(self, path: str) -> dict[str, Any]:
        reply = await self._client.call("GET", path, headers=self._authorization)
        if reply.status != 200:
            raise Refused(path, reply.status, reply.body)
        return document(reply)

    async def _post(self, path: str, body: object) -> None:
        key = f"Idempotency-Key: {secrets.token_hex(16)}\r\n"
        reply = await self._client.call("POST", path, headers=self._authorization + key, body=body)
        if reply.status not in {200, 201, 202}:
            raise Refused(path, reply.status, reply.body)


def instant(moment: datetime) -> str:
    """Write an instant as RFC 3339 in UTC, to the millisecond."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
