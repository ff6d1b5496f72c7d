"""The routes of the house: a shopper's balances; what operators confirm, top up and import."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.money import AMOUNT_MINOR_MAX, EXPONENTS
from app.sales.store import Act
from app.settlement.house import line_store, store
from app.settlement.house.bank_lines import BankDesk, Imported
from app.settlement.house.desk import House, HouseRefusal, Proof, Settled, ToppedUp
from app.settlement.house.line_store import BankLine, NewLine
from app.settlement.house.rules import find_codes
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import field_invalid
from app.web.keys import OPERATOR, SHOPPER
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query

LINES_MAX: Final = 500  # of one import: one transaction
LINES_BYTES_MAX: Final = 512 * 1024
_ORDINAL_MAX: Final = 9_223_372_036_854_775_807

Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MINOR_MAX // 1_000_000)]
Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Reference: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,64}\Z")]
Words: TypeAlias = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*\Z"),
]
Remark: TypeAlias = Annotated[str, msgspec.Meta(max_length=500)]
Shopper: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]
_Ordinal: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=_ORDINAL_MAX)]

_YEAR_MIN: Final = 2000
_YEAR_MAX: Final = 2199
_NUMBER: Final = re.compile(r"[0-9A-Za-z]{8,64}", re.ASCII)
_REFERENCE: Final = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_BALANCE_ID: Final = re.compile(r"bal_[0-9a-f]{32}", re.ASCII)
_REFUSALS: Final = ("validation_failed", "shard_unavailable")


class ConfirmPayment(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/payments/{payment}/confirm`."""

    amount_minor: Amount
    currency: Currency
    reference: Reference
    note: Words


class ConfirmPaidBack(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/refunds/{refund}/paid-back`."""

    reference: Reference
    note: Words


class TopUp(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/balances/top-ups`."""

    shopper: Shopper
    amount_minor: Amount
    currency: Currency
    reason: Words


class StatementLine(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a bank statement; of its remark only remittance codes are kept."""

    reference: Reference
    amount_minor: Amount
    currency: Currency
    booked_at: Annotated[datetime, msgspec.Meta(tz=True)]
    remark: Remark = ""


class ImportLines(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/bank-lines`."""

    lines: Annotated[list[StatementLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    reason: Words


class AssignLine(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/bank-lines/{line}/assign`."""

    payment_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z]{28}\Z")]
    reason: Words


class SendBack(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/bank-lines/{line}/send-back`."""

    reference: Reference
    reason: Words


class LinesQuery(Page, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/bank-lines`."""

    state: Annotated[str, msgspec.Meta(pattern=r"^(suspense|matched|returned)\Z")] | None = None


class LineView(msgspec.Struct, kw_only=True):
    """One bank line, and why it is where it is."""

    reference: str
    amount_minor: int
    currency: str
    codes: list[str]
    booked_at: datetime
    state: str
    reason: str
    payment_id: str | None
    return_reference: str | None
    imported_at: datetime


class LineList(msgspec.Struct):
    """A page of bank lines by reference."""

    items: list[LineView]
    next: str | None


class BalanceView(msgspec.Struct, kw_only=True):
    """What a shopper has put in and not spent, in one currency."""

    balance_id: str
    currency: str
    balance_minor: int
    entries: int


class BalanceList(msgspec.Struct):
    """A shopper's balances by currency."""

    items: list[BalanceView]


class BalanceEntryView(msgspec.Struct, kw_only=True):
    """One movement of a balance: a top-up, a payment or a refund."""

    number: int
    kind: str
    reference: str
    amount_minor: int
    balance_after_minor: int
    recorded_at: datetime


class BalanceEntryList(msgspec.Struct):
    """A page of movements, newest first."""

    items: list[BalanceEntryView]
    next: str | None


def endpoints(house: House) -> list[Endpoint]:
    """Return the shoppers' routes of the house."""
    routes = _Routes(house)
    return [
        Endpoint(
            method="GET",
            path="/v1/balances",
            handler=routes.balances,
            summary="List the shopper's own balances.",
            access=Access.SHOPPER,
            answers={200: BalanceList},
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="GET",
            path="/v1/balances/{balance}/entries",
            handler=routes.entries,
            summary="List what moved on one of the shopper's own balances, newest first.",
            access=Access.SHOPPER,
            answers={200: BalanceEntryList},
            query=Page,
            refusals=("not_found", *_REFUSALS),
        ),
    ]


def admin_endpoints(house: House) -> list[Endpoint]:
    """Return the operators' routes of the house; what makes something does so once per key."""
    return [*_acts_by_hand(_ByHand(house)), *_acts_on_lines(_Lines(BankDesk(house)))]


def _acts_by_hand(hand: "_ByHand") -> list[Endpoint]:
    return [
        Endpoint(
            method="POST",
            path="/admin/v1/payments/{payment}/confirm",
            handler=hand.confirm,
            summary="Confirm an offline payment with proof.",
            access=Access.OPERATOR,
            answers={200: Settled},
            body=ConfirmPayment,
            refusals=(
                HouseRefusal.NOT_FOUND,
                HouseRefusal.PAYMENT_NOT_OPEN,
                HouseRefusal.AMOUNT_MISMATCH,
                HouseRefusal.PROOF_REUSED,
                *_REFUSALS,
            ),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/refunds/{refund}/paid-back",
            handler=hand.paid_back,
            summary="Record that a refund was paid back by hand, with proof.",
            access=Access.OPERATOR,
            answers={200: Settled},
            body=ConfirmPaidBack,
            refusals=(HouseRefusal.NOT_FOUND, HouseRefusal.REFUND_SETTLED, *_REFUSALS),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/balances/top-ups",
            handler=hand.top_up,
            summary="Put money on a shopper's balance.",
            access=Access.OPERATOR,
            answers={201: ToppedUp},
            body=TopUp,
            refusals=(HouseRefusal.IDEMPOTENCY_MISMATCH, *_REFUSALS),
            idempotent_key=True,
        ),
    ]


def _acts_on_lines(bank: "_Lines") -> list[Endpoint]:
    return [
        Endpoint(
            method="POST",
            path="/admin/v1/bank-lines",
            handler=bank.bring,
            summary="Import lines of a bank statement, each once by its reference.",
            access=Access.OPERATOR,
            answers={201: Imported},
            body=ImportLines,
            refusals=(HouseRefusal.IDEMPOTENCY_MISMATCH, *_REFUSALS),
            idempotent_key=True,
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/bank-lines",
            handler=bank.show,
            summary="List bank lines: in suspense, matched or returned.",
            access=Access.VIEWER,
            answers={200: LineList},
            query=LinesQuery,
            refusals=_REFUSALS,
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/bank-lines/{line}/assign",
            handler=bank.assign,
            summary="Let a bank line in suspense pay an open payment of its amount.",
            access=Access.OPERATOR,
            answers={200: LineView},
            body=AssignLine,
            refusals=(
                HouseRefusal.NOT_FOUND,
                HouseRefusal.PAYMENT_NOT_OPEN,
                HouseRefusal.AMOUNT_MISMATCH,
                HouseRefusal.BANK_LINE_SETTLED,
                *_REFUSALS,
            ),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/bank-lines/{line}/send-back",
            handler=bank.send_back,
            summary="Record that a bank line in suspense was sent back.",
            access=Access.OPERATOR,
            answers={200: LineView},
            body=SendBack,
            refusals=(HouseRefusal.NOT_FOUND, HouseRefusal.BANK_LINE_SETTLED, *_REFUSALS),
        ),
    ]


class _Routes:
    def __init__(self, house: House) -> None:
        self._house = house

    async def balances(self, request: web.Request) -> web.StreamResponse:
        async with self._house.ledger.connection() as connection:
            rows = await store.balances_of(connection, request[SHOPPER])
        items = [
            BalanceView(
                balance_id=row["id"],
                currency=row["currency"],
                balance_minor=row["balance_minor"],
                entries=row["entries"],
            )
            for row in rows
        ]
        return respond(request, 200, BalanceList(items))

    async def entries(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, Page)
        before = _ORDINAL_MAX if query.cursor is None else decode_cursor(query.cursor, _Ordinal)
        balance_id = request.match_info["balance"]
        if _BALANCE_ID.fullmatch(balance_id) is None:
            return problem("not_found", request)
        async with self._house.ledger.connection() as connection:
            if not await store.is_own_balance(connection, balance_id, request[SHOPPER]):
                return problem("not_found", request)
            rows = await store.entries_before(connection, balance_id, before, query.limit + 1)
        items = [_entry_view(row) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        following = encode_cursor(items[-1].number) if more else None
        return respond(request, 200, BalanceEntryList(items, following))


class _ByHand:
    def __init__(self, house: House) -> None:
        self._house = house

    async def confirm(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ConfirmPayment)
        proof = _proof(request, body.reference, body.note)
        number = request.match_info["payment"]
        if _NUMBER.fullmatch(number) is None:
            return problem("not_found", request)
        answer = await self._house.confirm_offline(number, body.amount_minor, body.currency, proof)
        return _told(request, answer)

    async def paid_back(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ConfirmPaidBack)
        number = request.match_info["refund"]
        if _NUMBER.fullmatch(number) is None:
            return problem("not_found", request)
        proof = _proof(request, body.reference, body.note)
        return _told(request, await self._house.confirm_paid_back(number, proof))

    async def top_up(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, TopUp)
        _check_currency(body.currency, "$.currency")
        money = (body.amount_minor, body.currency)
        answer = await self._house.top_up(key, body.shopper, money, _act(request, body.reason))
        return _made(request, answer)


class _Lines:
    def __init__(self, bank: BankDesk) -> None:
        self._bank = bank

    async def bring(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, ImportLines, LINES_BYTES_MAX)
        for place, line in enumerate(body.lines):
            _check_currency(line.currency, f"$.lines[{place}].currency")
            if not _YEAR_MIN <= line.booked_at.year <= _YEAR_MAX:
                raise field_invalid(path=f"$.lines[{place}].booked_at", message="no such day")
        lines = [_new_line(line) for line in body.lines]
        answer = await self._bank.import_lines(key, lines, _act(request, body.reason))
        return _made(request, answer)

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, LinesQuery)
        after = "" if query.cursor is None else decode_cursor(query.cursor, Reference)
        async with self._bank.house.ledger.connection() as connection:
            rows = await line_store.lines_after(connection, query.state, after, query.limit + 1)
        items = [_line_view(row) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        following = encode_cursor(items[-1].reference) if more else None
        return respond(request, 200, LineList(items, following))

    async def assign(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, AssignLine)
        reference = request.match_info["line"]
        if _REFERENCE.fullmatch(reference) is None:
            return problem("not_found", request)
        act = _act(request, body.reason)
        return _told_line(request, await self._bank.assign(reference, body.payment_id, act))

    async def send_back(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, SendBack)
        reference = request.match_info["line"]
        if _REFERENCE.fullmatch(reference) is None:
            return problem("not_found", request)
        act = _act(request, body.reason)
        return _told_line(request, await self._bank.send_back(reference, body.reference, act))


def _act(request: web.Request, reason: str) -> Act:
    return Act(actor=request[OPERATOR].name, reason=reason)


def _proof(request: web.Request, reference: str, note: str) -> Proof:
    return Proof(reference=reference, note=note, actor=request[OPERATOR].name)


def _check_currency(currency: str, path: str) -> None:
    if currency not in EXPONENTS:
        raise field_invalid(path=path, message="not a currency that we sell in")


def _new_line(line: StatementLine) -> NewLine:
    return NewLine(
        reference=line.reference,
        amount_minor=line.amount_minor,
        currency=line.currency,
        codes=find_codes(line.remark),
        booked_at=line.booked_at,
    )


def _told(request: web.Request, answer: Settled | HouseRefusal) -> web.StreamResponse:
    if isinstance(answer, HouseRefusal):
        return problem(answer, request)
    return respond(request, 200, answer)


def _told_line(request: web.Request, answer: BankLine | HouseRefusal) -> web.StreamResponse:
    if isinstance(answer, HouseRefusal):
        return problem(answer, request)
    return respond(request, 200, _line_view(asdict(answer)))


def _made(
    request: web.Request, answer: tuple[msgspec.Struct, bool] | HouseRefusal
) -> web.StreamResponse:
    if isinstance(answer, HouseRefusal):
        return problem(answer, request)
    made, is_replay = answer
    headers = {"Idempotency-Replayed": "true"} if is_replay else None
    return respond(request, 201, made, headers)


def _line_view(row: Mapping[str, Any]) -> LineView:
    told = {**row, "payment_id": row["payment_number"]}
    del told["payment_number"]
    return LineView(**told)


def _entry_view(row: Mapping[str, Any]) -> BalanceEntryView:
    return BalanceEntryView(
        number=row["ordinal"],
        **{
            name: row[name]
            for name in ("kind", "reference", "amount_minor", "balance_after_minor", "recorded_at")
        },
    )
