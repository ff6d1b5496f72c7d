"""The routes of settlement: operators read the books."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.equation import Equation, equations_as_json
from app.orders.audit import UnknownSale
from app.settlement.books import VERSION_MAX, AccountLine, Books, EntryLine, TrialBalance
from app.web.access import Access
from app.web.body import respond
from app.web.endpoint import Endpoint
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query

Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]

# What cursors of these lists hold; they come back through a client's hands.
_Code: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z", max_length=120)]
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]

_REFUSALS: Final = ("validation_failed", "shard_unavailable")


class AccountsQuery(Page, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/ledger/accounts`."""

    currency: Currency | None = None


class TrialBalanceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/ledger/trial-balance`."""

    currency: Currency | None = None


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/audit`."""

    sale: Annotated[str, msgspec.Meta(max_length=40)] | None = None


class AccountView(msgspec.Struct, kw_only=True):
    """One account; `balance_minor` is on its normal side."""

    code: str
    currency: str
    kind: str
    normal_side: str
    guard: str
    balance_minor: int
    debits_posted_minor: int
    credits_posted_minor: int
    debits_pending_minor: int
    credits_pending_minor: int
    entries: int


class AccountList(msgspec.Struct):
    """A page of accounts by code."""

    items: list[AccountView]
    next: str | None


class EntryView(msgspec.Struct, kw_only=True):
    """One entry of an account; balances are on the account's normal side."""

    number: int
    transfer_id: str
    batch_id: str
    side: str
    amount_minor: int
    balance_before_minor: int
    balance_after_minor: int
    kind: str
    business_type: str
    business_id: str
    reference: str
    effective_at: datetime
    recorded_at: datetime


class EntryList(msgspec.Struct):
    """A page of entries, newest first."""

    items: list[EntryView]
    next: str | None


class TrialLineView(msgspec.Struct):
    """One account of a trial balance."""

    code: str
    debit_minor: int
    credit_minor: int


class TrialBalanceView(msgspec.Struct, kw_only=True):
    """One currency; `balanced` says that the difference is zero."""

    currency: str
    lines: list[TrialLineView]
    debits_minor: int
    credits_minor: int
    difference_minor: int
    balanced: bool


class TrialBalanceList(msgspec.Struct):
    """The trial balance of every currency asked for."""

    items: list[TrialBalanceView]


def admin_endpoints(books: Books) -> list[Endpoint]:
    """Return the admin routes of this stage."""
    routes = _Routes(books)
    return [
        Endpoint(
            method="GET",
            path="/admin/v1/ledger/accounts",
            handler=routes.accounts,
            summary="List the accounts of the ledger with their balances.",
            access=Access.VIEWER,
            answers={200: AccountList},
            query=AccountsQuery,
            refusals=_REFUSALS,
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/ledger/accounts/{code:.+}/entries",
            handler=routes.entries,
            summary="List the entries of one account, newest first.",
            access=Access.VIEWER,
            answers={200: EntryList},
            query=Page,
            refusals=("not_found", *_REFUSALS),
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/ledger/trial-balance",
            handler=routes.trial_balance,
            summary="Sum all accounts of each currency; debits equal credits.",
            access=Access.VIEWER,
            answers={200: TrialBalanceList},
            query=TrialBalanceQuery,
            refusals=_REFUSALS,
        ),
    ]


class _Routes:
    def __init__(self, books: Books) -> None:
        self._books = books

    async def accounts(self, request: web.Request) -> web.Response:
        query = read_query(request, AccountsQuery)
        after = "" if query.cursor is None else decode_cursor(query.cursor, _Code)
        lines = await self._books.read_accounts(
            currency=query.currency, after=after, limit=query.limit + 1
        )
        items = [account_view(line) for line in lines[: query.limit]]
        more = len(lines) > query.limit
        return respond(
            request, 200, AccountList(items, encode_cursor(items[-1].code) if more else None)
        )

    async def entries(self, request: web.Request) -> web.Response:
        query = read_query(request, Page)
        before = None if query.cursor is None else decode_cursor(query.cursor, _Number)
        code = request.match_info["code"]
        # Postgres cannot even be asked for NUL or half a character.
        lines = (
            await self._books.read_entries(code, before=before, limit=query.limit + 1)
            if code.isprintable()
            else None
        )
        if lines is None:
            return problem("not_found", request)
        items = [entry_view(line) for line in lines[: query.limit]]
        more = len(lines) > query.limit
        return respond(
            request, 200, EntryList(items, encode_cursor(items[-1].number) if more else None)
        )

    async def trial_balance(self, request: web.Request) -> web.Response:
        query = read_query(request, TrialBalanceQuery)
        balances = await self._books.read_trial_balance(query.currency)
        items = [trial_balance_view(balance) for balance in balances]
        return respond(request, 200, TrialBalanceList(items))


def account_view(line: AccountLine) -> AccountView:
    """Turn an account into what a reader outside sees."""
    return AccountView(
        code=line.code,
        currency=line.currency,
        kind=line.kind,
        normal_side=line.normal_side,
        guard=line.guard,
        balance_minor=line.balance_minor,
        debits_posted_minor=line.debits_posted,
        credits_posted_minor=line.credits_posted,
        debits_pending_minor=line.debits_pending,
        credits_pending_minor=line.credits_pending,
        entries=line.version,
    )


def entry_view(line: EntryLine) -> EntryView:
    """Turn an entry into what a reader outside sees."""
    return EntryView(
        number=line.version,
        transfer_id=f"trf_{line.transfer_id.hex}",
        batch_id=line.batch_id.hex,
        side=line.side,
        amount_minor=line.amount_minor,
        balance_before_minor=line.balance_before_minor,
        balance_after_minor=line.balance_after_minor,
        kind=line.kind,
        business_type=line.business_type,
        business_id=line.business_id,
        reference=line.reference,
        effective_at=line.effective_at,
        recorded_at=line.recorded_at,
    )


def trial_balance_view(balance: TrialBalance) -> TrialBalanceView:
    """Turn a trial balance into what a reader outside sees."""
    return TrialBalanceView(
        currency=balance.currency,
        lines=[
            TrialLineView(line.code, line.debit_minor, line.credit_minor) for line in balance.lines
        ],
        debits_minor=balance.debits_minor,
        credits_minor=balance.credits_minor,
        difference_minor=balance.difference_minor,
        balanced=balance.difference_minor == 0,
    )


def audit_endpoint(audit: Callable[[str | None], Awaitable[list[Equation]]]) -> Endpoint:
    """
    Make GET /admin/v1/audit.

    Args:
        audit: judges every invariant of one sale, or of all.
    """

    async def judge(request: web.Request) -> web.Response:
        query = read_query(request, AuditQuery)
        try:
            equations = await audit(query.sale)
        except UnknownSale:
            return problem("sale_not_found", request)
        return respond(request, 200, equations_as_json(equations))

    return Endpoint(
        method="GET",
        path="/admin/v1/audit",
        handler=judge,
        summary="Every promise that the stores can prove, as an equation.",
        access=Access.VIEWER,
        answers={200: None},
        query=AuditQuery,
        refusals=("sale_not_found", "shard_unavailable"),
    )
