"""The operators' routes of risk: the block list, what is held, what was refused and why."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from app.kernel.ids import OrderKey
from app.payments.risk import desk
from app.payments.risk.desk import HoldRefusal
from app.payments.risk.rules import BlockEffect, HoldState, RiskSubject
from app.payments.risk.store import Block
from app.payments.stage import PaymentStage
from app.sales.store import Act
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint, Handler
from app.web.invalid import field_invalid
from app.web.keys import OPERATOR
from app.web.problem import problem

DEVICE_HEADER: Final = "Doorbuster-Device"
_DEVICE: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_BLOCK_ID: Final = re.compile(r"blk_(shopper|device|address)_([0-9a-f]{32})", re.ASCII)

Reason = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*\Z"),
]


class PutBlock(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/risk/blocks`; the value is kept as a pseudonym alone."""

    kind: RiskSubject
    value: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]
    reason: Reason
    effect: BlockEffect = BlockEffect.REFUSE


class GiveReason(msgspec.Struct, forbid_unknown_fields=True):
    """Why an operator decides as they do."""

    reason: Reason


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    """One block; who it is about cannot be read out of it."""

    block_id: str
    kind: RiskSubject
    effect: BlockEffect
    reason: str
    blocked_by: str
    blocked_at: datetime


class BlockList(msgspec.Struct, frozen=True):
    """The newest blocks."""

    items: list[BlockView]


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """Why an order's payment waits, or waited, and who decided."""

    state: HoldState
    rule: str
    held_at: datetime
    decided_by: str | None
    decided_why: str | None
    decided_at: datetime | None


class WaitingHold(msgspec.Struct, frozen=True, kw_only=True):
    """One order whose payment waits for an operator."""

    order_id: str
    rule: str
    held_at: datetime


class HoldList(msgspec.Struct, frozen=True):
    """What waits, oldest first."""

    items: list[WaitingHold]


class RefusalView(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that refused an order's payment."""

    rule: str
    tries: int
    first_at: datetime
    last_at: datetime


class OrderRisk(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules said of one order's payments."""

    hold: HoldView | None
    refusals: list[RefusalView]


def device_of(request: web.Request) -> str | None:
    """
    Read the device that a client tells us of, opaque to us.

    Raises:
        InvalidRequest: it is there twice, too long, or not printable.
    """
    told = request.headers.getall(DEVICE_HEADER, [])
    if not told:
        return None
    if len(told) > 1 or _DEVICE.fullmatch(told[0]) is None:
        raise field_invalid(path=DEVICE_HEADER, message="once, 1 to 128 printable characters")
    return told[0]


def admin_endpoints(stage: PaymentStage) -> list[Endpoint]:
    """Return the operators' routes of risk."""
    routes = _Routes(stage)
    return [*_block_endpoints(routes), *_hold_endpoints(routes)]


def _block_endpoints(routes: "_Routes") -> list[Endpoint]:
    return [
        Endpoint(
            method="GET",
            path="/admin/v1/risk/blocks",
            handler=routes.blocks,
            summary="Who is blocked from paying, and why.",
            access=Access.VIEWER,
            answers={200: BlockList},
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/risk/blocks",
            handler=routes.block,
            summary="Block a shopper, a device or an address from paying.",
            access=Access.OPERATOR,
            answers={200: BlockView},
            body=PutBlock,
            refusals=("validation_failed", "shard_unavailable"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/risk/blocks/{block}/remove",
            handler=routes.unblock,
            summary="Take a block off the list.",
            access=Access.OPERATOR,
            answers={204: None},
            body=GiveReason,
            refusals=("not_found", "validation_failed", "shard_unavailable"),
        ),
    ]


def _hold_endpoints(routes: "_Routes") -> list[Endpoint]:
    refusals = (*HoldRefusal, "validation_failed", "shard_unavailable")
    return [
        Endpoint(
            method="GET",
            path="/admin/v1/risk/holds",
            handler=routes.holds,
            summary="Payments that wait for an operator, oldest first.",
            access=Access.VIEWER,
            answers={200: HoldList},
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/orders/{order}/risk",
            handler=routes.order,
            summary="Why payments of an order were held or refused.",
            access=Access.VIEWER,
            answers={200: OrderRisk},
            refusals=("order_not_found", "shard_unavailable"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/risk/release",
            handler=routes.decide(HoldState.RELEASED),
            summary="Let a held payment be opened.",
            access=Access.OPERATOR,
            answers={200: OrderRisk},
            body=GiveReason,
            refusals=refusals,
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/risk/reject",
            handler=routes.decide(HoldState.REJECTED),
            summary="Refuse a held payment for good.",
            access=Access.OPERATOR,
            answers={200: OrderRisk},
            body=GiveReason,
            refusals=refusals,
        ),
    ]


class _Routes:
    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage

    async def blocks(self, request: web.Request) -> web.StreamResponse:
        rows = await desk.list_blocks(self._stage)
        return respond(request, 200, BlockList([_view_block(row) for row in rows]))

    async def block(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, PutBlock)
        act = Act(actor=request[OPERATOR].name, reason=body.reason)
        row = await desk.block_subject(self._stage, body.kind, body.value, body.effect, act)
        return respond(request, 200, _view_block(row))

    async def unblock(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, GiveReason)
        named = _BLOCK_ID.fullmatch(request.match_info["block"])
        if named is None:
            return problem("not_found", request)
        act = Act(actor=request[OPERATOR].name, reason=body.reason)
        kind, pseudonym = RiskSubject(named[1]), bytes.fromhex(named[2])
        if not await desk.unblock_subject(self._stage, kind, pseudonym, act):
            return problem("not_found", request)
        return web.Response(status=204)

    async def holds(self, request: web.Request) -> web.StreamResponse:
        rows = await desk.list_holds(self._stage)
        return respond(request, 200, HoldList([self._view_waiting(row) for row in rows]))

    async def order(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request)

    def decide(self, state: HoldState) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, GiveReason)
            act = Act(actor=request[OPERATOR].name, reason=body.reason)
            order_id = request.match_info["order"]
            refused = await desk.decide_hold(self._stage, order_id, state, act)
            return await self._tell(request) if refused is None else problem(refused, request)

        return answer

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        told = await desk.read_order_risk(self._stage, request.match_info["order"])
        if told is None:
            return problem("order_not_found", request)
        hold, refusals = told
        view = OrderRisk(
            hold=None if hold is None else _view_hold(hold),
            refusals=[RefusalView(**row) for row in refusals],
        )
        return respond(request, 200, view)

    def _view_waiting(self, row: Mapping[str, Any]) -> WaitingHold:
        key = OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"])
        order_id = self._stage.order_ids.write(key, row["shopper"])
        return WaitingHold(order_id=order_id, rule=row["rule"], held_at=row["held_at"])


def _view_block(block: Block) -> BlockView:
    return BlockView(
        block_id=f"blk_{block.kind}_{block.pseudonym.hex()}",
        kind=block.kind,
        effect=block.effect,
        reason=block.reason,
        blocked_by=block.blocked_by,
        blocked_at=block.blocked_at,
    )


def _view_hold(row: Mapping[str, Any]) -> HoldView:
    return HoldView(
        state=HoldState(row["state"]),
        rule=row["rule"],
        held_at=row["held_at"],
        decided_by=row["decided_by"],
        decided_why=row["decided_why"],
        decided_at=row["decided_at"],
    )
