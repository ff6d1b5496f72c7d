"""The doors of one api process, knocked at in every way there is, and rows counted behind them."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import aiohttp
from redis.asyncio import Redis
from yarl import URL

from app.embedded.run_file import RunFile
from loadtest.tokens import Signer
from tests.contract.documented import Route
from tests.real_stores import session

KEY: Final = "0123456789abcdef-contract"
TOKENS: Final = {
    "viewer": "viewer-token-of-the-tests",
    "operator": "operator-token-of-the-tests",
    "merchant": "merchant-token-of-the-tests",
}
SCOPES: Final = {"viewer": "viewer", "operator": "operator", "merchant": "merchant:m-1"}

# A sale that an earlier test has closed gives its units back in its own time: withdrawals and
# their credits are the coordinator's, and no request writes any.
LIST_TABLES: Final = """
SELECT format('SELECT %L AS name, count(*) AS rows FROM %I', tablename, tablename)
       || CASE tablename WHEN 'bucket_moves' THEN $$ WHERE kind <> 'withdrawal'$$ ELSE '' END
FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'pool_credits'"""


class Reply(NamedTuple):
    """What came back; `body` is None where there was no JSON."""

    status: int
    headers: Any
    body: Any
    raw: bytes

    @property
    def code(self) -> str:
        return "" if self.status < 400 else self.body["code"]


class Door:
    """Both listeners of one api process that knows tokens of every scope."""

    def __init__(self, client: aiohttp.ClientSession, run: RunFile, urls: dict[str, str]) -> None:
        self._client = client
        self._run = run
        self.urls = urls
        self.signer = Signer.from_keys(run.auth_keys)

    def token_for(self, route: Route, shopper: str = "ann") -> str | None:
        """Give the token that opens a route."""
        if route.access == "admin":
            return TOKENS["operator"]
        return self.signer.sign(shopper) if route.access == "shopper" else None

    async def knock(  # noqa: PLR0913  each may be wrong in a way of its own
        self,
        route: Route,
        path: str | None = None,
        *,
        token: str | None = None,
        raw: bytes | None = None,
        key: str | None = KEY,
        headers: Iterable[tuple[str, str]] = (),
        method: str | None = None,
    ) -> Reply:
        """
        Send one request to a route as it is written, and read the answer.

        Args:
            route: whose listener and method.
            path: percent-encoded, with the query; None asks for the thing `none`.
            token: as Bearer; None sends none.
            raw: the body; JSON unless `headers` say otherwise.
            key: the Idempotency-Key of routes that want one.
            headers: more, or others.
            method: another than the route's.
        """
        sent = list(headers)
        given = {name for name, _ in sent}
        if token is not None:
            sent.append(("Authorization", f"Bearer {token}"))
        if route.wants_key and key is not None:
            sent.append(("Idempotency-Key", key))
        if raw is not None and "Content-Type" not in given:
            sent.append(("Content-Type", "application/json"))
        url = URL(self.urls[route.listener] + (path or route.at("none")), encoded=True)
        async with self._client.request(
            method or route.method, url, headers=sent, data=raw, skip_auto_headers=["Content-Type"]
        ) as answer:
            content = await answer.read()
            is_json = answer.content_type in {"application/json", "application/problem+json"}
            body = json.loads(content) if is_json and content else None
            return Reply(answer.status, answer.headers, body, content)

    async def rows(self) -> dict[str, int]:
        """Count what every store holds."""
        counts: dict[str, int] = {}
        for place in (*self._run.shards, self._run.ledger):
            async with session(place) as connection:
                tables = await connection.fetch(LIST_TABLES)
                found = await connection.fetch(" UNION ALL ".join(one[0] for one in tables))
                counts |= {f"{place[-8:]} {row['name']}": row["rows"] for row in found}
        redis = Redis.from_url(self._run.redis)
        counts |= {f"redis {key.decode()}": 1 for key in await redis.keys()}
        await redis.aclose()
        return counts

    @contextlib.asynccontextmanager
    async def nothing_is_written(self) -> AsyncIterator[None]:
        before = await self.rows()
        yield
        after = await self.rows()
        changed = {name for name, _ in after.items() ^ before.items()}
        # The keys of such a sale go with it.
        changed -= {name for name in before if name.startswith("redis ")}
        assert not changed, [(name, before.get(name), after.get(name)) for name in changed]


def check(route: Route, reply: Reply, what: object) -> list[str]:
    """Say what is wrong with an answer whatever was asked: a fault, a trace, another shape."""
    faults = []
    if reply.status >= 500:
        faults.append(f"{reply.status}")
    if b"Traceback" in reply.raw or b'File "' in reply.raw:
        faults.append("a trace")
    if reply.status >= 400 and reply.body is None:
        faults.append(f"{reply.status} is no problem document: {reply.raw[:80]!r}")
    elif reply.status != 431:  # the parser's own: no route is known yet
        media = reply.headers.get("Content-Type", "").partition(";")[0]
        faults += route.faults_of_answer(reply.status, media, reply.body)
    return [f"{route} with {str(what)[:90]}: {fault}" for fault in faults]
