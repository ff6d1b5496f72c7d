"""The operators' routes of dead letters: list, drop, retry."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web

from app.orders.letters.store import (
    LetterFilter,
    LetterKind,
    drop_letters,
    list_letters,
    retry_letters,
)
from app.sales.catalog import Catalog
from app.storage.shards import Shard, Shards
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.keys import OPERATOR
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query

LetterId = Annotated[str, msgspec.Meta(pattern=r"^\d{1,4}-\d{1,18}\Z")]
"""The shard's index and the row's number, so that two shards may count alike."""


class LetterPage(Page, forbid_unknown_fields=True):
    """The query of the list."""

    kind: LetterKind | None = None
    reason: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    sale: Annotated[str, msgspec.Meta(max_length=40)] | None = None


class ChangeLetters(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters to drop or retry, and why; an empty filter means every letter."""

    reason_given: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = msgspec.field(
        name="reason"
    )
    kind: LetterKind | None = None
    letter_reason: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    sale: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    letters: Annotated[list[LetterId], msgspec.Meta(max_length=1_000)] = []
    dry_run: bool = False


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """One letter, without what is personal in it."""

    letter_id: str
    kind: str
    reason: str
    sale: str | None
    units: int | None
    detail: dict[str, Any]
    parked_at: datetime


class LetterList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of letters, shard by shard, oldest first."""

    items: list[LetterView]
    next: str | None


class LettersChanged(msgspec.Struct, frozen=True, kw_only=True):
    """How many letters an act touched, or would touch."""

    letters: int
    dry_run: bool


Change = Callable[..., Awaitable[int]]


def admin_endpoints(shards: Shards, catalog: Catalog) -> list[Endpoint]:
    """Return the operators' routes of dead letters."""
    routes = _Routes(shards, catalog)
    listing = Endpoint(
        method="GET",
        path="/admin/v1/dead-letters",
        handler=routes.list,
        summary="What could not be done, with its reason.",
        access=Access.VIEWER,
        answers={200: LetterList},
        query=LetterPage,
        refusals=("sale_not_found", "shard_unavailable"),
    )
    acts: Sequence[tuple[str, Change, str]] = (
        ("drop", drop_letters, "Take letters off the list for good."),
        ("retry", retry_letters, "Try facts again; letters of orders are final."),
    )
    return [
        listing,
        *(
            Endpoint(
                method="POST",
                path=f"/admin/v1/dead-letters/{name}",
                handler=routes.change(act),
                summary=summary,
                access=Access.OPERATOR,
                answers={200: LettersChanged},
                body=ChangeLetters,
                refusals=("sale_not_found", "shard_unavailable"),
            )
            for name, act, summary in acts
        ),
    ]


class _Routes:
    def __init__(self, shards: Shards, catalog: Catalog) -> None:
        self._shards = shards
        self._catalog = catalog

    async def list(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, LetterPage)
        sale = await self._number(query.sale)
        if query.sale is not None and sale is None:
            return problem("sale_not_found", request)
        first, after = _position(query)
        wanted = LetterFilter(kind=query.kind, reason=query.reason, sale=sale)
        found: list[tuple[Shard, dict[str, Any]]] = []
        for shard in self._shards.all[first:]:
            room = query.limit + 1 - len(found)
            rows = await list_letters(shard, wanted, after, room)
            found += [(shard, dict(row)) for row in rows]
            after = 0
            if len(found) > query.limit:
                break
        page = found[: query.limit]
        following = None
        if len(found) > query.limit:
            shard, row = page[-1]
            following = encode_cursor((shard.index, row["id"]))
        items = [await self._view(shard, row) for shard, row in page]
        return respond(request, 200, LetterList(items=items, next=following))

    def change(self, act: Change) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make the handler of one act over all shards."""

        async def handler(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, ChangeLetters)
            sale = await self._number(body.sale)
            if body.sale is not None and sale is None:
                return problem("sale_not_found", request)
            touched = 0
            for shard in self._shards.all:
                ids = _ids_on(shard, body.letters)
                if body.letters and not ids:
                    continue
                touched += await act(
                    shard,
                    LetterFilter(kind=body.kind, reason=body.letter_reason, sale=sale, ids=ids),
                    actor=request[OPERATOR].name,
                    reason=body.reason_given,
                    dry_run=body.dry_run,
                )
            return respond(request, 200, LettersChanged(letters=touched, dry_run=body.dry_run))

        return handler

    async def _number(self, sale_id: str | None) -> int | None:
        sale = None if sale_id is None else await self._catalog.find(sale_id)
        return None if sale is None else sale.number

    async def _view(self, shard: Shard, row: dict[str, Any]) -> LetterView:
        sale = None if row["sale"] is None else await self._catalog.by_number(row["sale"])
        return LetterView(
            letter_id=f"{shard.index}-{row['id']}",
            kind=row["kind"],
            reason=row["reason"],
            sale=None if sale is None else sale.id,
            units=row["units"],
            detail=row["detail"],
            parked_at=row["parked_at"],
        )


def _position(query: LetterPage) -> tuple[int, int]:
    """Return the shard and the row after which the page begins."""
    if query.cursor is None:
        return 0, 0
    shard, after = decode_cursor(query.cursor, tuple[int, int])
    return max(0, shard), max(0, min(after, 2**62))


def _ids_on(shard: Shard, letters: Sequence[str]) -> tuple[int, ...]:
    parts = (letter.split("-") for letter in letters)
    return tuple(int(number) for index, number in parts if int(index) == shard.index)
