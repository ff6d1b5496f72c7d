"""
The fast lane of the one hot route: `POST /v1/sales/{sale}/orders`.

Takes what nearly every click of a rush is: a good token, a good key, a good body, a
sale and a bucket this process already sells from. Such a click costs no task and no
future; it stands in the bucket's queue, and the batch that carries it writes its reply.
One that asks for its row (`Prefer: wait`) then stands in the bucket's waiting room, and is
answered when the row is read.
Everything else goes the usual way (`orders.routes`), which also writes every refusal
of bad input. Both ways share the parts that decide and the parts that describe; a test
sends each request both ways and compares.
"""

from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, Self

import msgspec

from app.orders.desk import OrderDesk
from app.orders.order import Order
from app.orders.placement import Click
from app.orders.refusals import outcome_name, refusal_of
from app.orders.routes import PlaceOrder
from app.orders.selling import FULL, Accepted, Outcome
from app.orders.views import view_confirmed, view_ticket
from app.sales.sale import Sale, SaleKind, SaleState
from app.telemetry.requests import RequestTally
from app.web.access import Authenticator
from app.web.body import JSON, MSGPACK
from app.web.fast_lane import Exchange, Reply, Stamp, header_fields
from app.web.headers import read_idempotency_key, read_wait
from app.web.plain import PlainRequest
from app.web.problem import draw_wait_ms

ROUTE: Final = "/v1/sales/{sale}/orders"
_BEFORE, _AFTER = ROUTE.split("{sale}")
_USUAL_BYTES_MAX: Final = 24  # a body that is longer holds a reference, and comes once
_REPLIES_MAX: Final = 1_024  # forms of refusals remembered

# Stands in a rendered reply where each order's own word goes; no encoder changes it.
_BLANK: Final = "~~~~~~~~"
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(PlaceOrder)
_TICKET_FIELDS: Final = header_fields({"Content-Type": JSON})
_REPLAYED: Final = header_fields({"Idempotency-Replayed": "true"})
_JSON_TYPES: Final = frozenset({JSON, "application/json; charset=utf-8"})


class BuyLane:
    """Takes clicks past the application."""

    def __init__(
        self, desk: OrderDesk, authenticator: Authenticator, tally: RequestTally, stamp: Stamp
    ) -> None:
        self.stamp = stamp
        self._desk = desk
        self._authenticator = authenticator
        self._tally = tally
        self._tickets = _Tickets()
        self._refusals: dict[tuple[object, ...], _Form] = {}

    def take(self, exchange: Exchange) -> bool:
        """Queue a click whose answer will surely be one of placing; leave every other."""
        request = exchange.request
        sale = self._sale_of(request)
        if sale is None:
            return False
        if self._desk.placement.is_full(sale):
            # The same for everybody, so it is told before a token or a body is looked at.
            exchange.answer(self._turn_away, exchange, sale)
            return True
        click = self._click_of(request)
        if click is None:
            return False
        return self._desk.placement.offer(sale, click, _Buyer(self, exchange, sale, click))

    def _sale_of(self, request: PlainRequest) -> Sale | None:
        sale_id = _sale_named_in(request.path) if request.method == "POST" else None
        sale = None if sale_id is None else self._desk.catalog.known(sale_id)
        if sale is None or sale.state is SaleState.DRAFT or sale.kind is SaleKind.GROUP:
            return None
        return sale

    def _click_of(self, request: PlainRequest) -> Click | None:
        """Read a click, checked as the application would; the token last, as the dearest."""
        headers = request.headers
        if request.body and headers.get("content-type") not in _JSON_TYPES:
            return None
        if MSGPACK in headers.get("accept", ""):
            return None
        key = read_idempotency_key(headers.get("idempotency-key", ""))
        raw = request.body
        body = _read_again(raw) if len(raw) <= _USUAL_BYTES_MAX else _read(raw)
        if key is None or body is None or body.group is not None:
            return None
        shopper = self._authenticator.shopper({"Authorization": headers.get("authorization", "")})
        return None if shopper is None else Click(shopper, key, body.quantity, body.reference or "")

    def count(self, status: int, seconds: float) -> None:
        """Count one request that was answered here."""
        self._tally.count(ROUTE, "POST", status, seconds)

    def write(self, buyer: "_Buyer", outcome: Outcome) -> Reply:
        """Write the reply to one click."""
        self._desk.count_answer(buyer.sale.id, outcome_name(outcome))
        if isinstance(outcome, Accepted):
            return self._tickets.write(buyer.sale, buyer.click, outcome)
        return self._refuse(buyer.exchange, buyer.sale, outcome)

    def wait(self, buyer: "_Buyer", accepted: Accepted, seconds: int) -> None:
        """Have one buyer told when the row is there."""
        self._desk.count_answer(buyer.sale.id, outcome_name(accepted))
        waiter = _Waiter(self, buyer, accepted)
        self._desk.confirmations.tell(waiter, accepted.key, accepted.entry_id, seconds)

    def write_late(self, buyer: "_Buyer", accepted: Accepted, order: Order | None) -> Reply:
        """Write the reply to one who has waited: the order, or the ticket if there is no row."""
        if order is None:
            return self._tickets.write(buyer.sale, buyer.click, accepted)
        view = view_confirmed(accepted.order_id, buyer.sale.id, order)
        return Reply(HTTPStatus.CREATED, _ticket_fields(accepted), _ENCODER.encode(view))

    def _turn_away(self, exchange: Exchange, sale: Sale) -> Reply:
        self._desk.count_answer(sale.id, outcome_name(FULL))
        return self._refuse(exchange, sale, FULL)

    def _refuse(self, exchange: Exchange, sale: Sale, outcome: Outcome) -> Reply:
        """Write a refusal; one that tells nobody an exact wait is encoded once for many."""
        code, fields = refusal_of(sale, outcome, self._desk.now_ms())
        if "retry_after_ms" in fields:
            return exchange.refusal(code, **fields)
        fields["retry_after_ms"] = draw_wait_ms(code)
        known = (code, exchange.language, exchange.request.path, *fields.values())
        form = self._refusals.get(known)
        if form is None:
            if len(self._refusals) >= _REPLIES_MAX:
                self._refusals.clear()
            rendered = exchange.refusal(code, request_id=_BLANK, **fields)
            form = self._refusals[known] = _Form.cut(rendered)
        return form.fill(exchange.request_id.encode())


class _Buyer:
    """Who waits for one answer of a batch."""

    __slots__ = ("click", "exchange", "lane", "sale")

    def __init__(self, lane: BuyLane, exchange: Exchange, sale: Sale, click: Click) -> None:
        self.lane = lane
        self.exchange = exchange
        self.sale = sale
        self.click = click

    def done(self) -> bool:
        return self.exchange.is_gone

    def set_result(self, outcome: Outcome, /) -> None:
        seconds = read_wait(self.exchange.request.headers.get("prefer", ""))
        if seconds and isinstance(outcome, Accepted):
            self.lane.wait(self, outcome, seconds)
        else:
            self.exchange.answer(self.lane.write, self, outcome)

    def set_exception(self, error: BaseException, /) -> None:
        self.exchange.answer(_fail, error)


class _Waiter:
    """Who has a ticket, and waits for the row."""

    __slots__ = ("_accepted", "_buyer", "_lane")

    def __init__(self, lane: BuyLane, buyer: _Buyer, accepted: Accepted) -> None:
        self._lane = lane
        self._buyer = buyer
        self._accepted = accepted

    def done(self) -> bool:
        return self._buyer.done()

    def set_result(self, order: Order | None, /) -> None:
        buyer = self._buyer
        buyer.exchange.answer(self._lane.write_late, buyer, self._accepted, order)

    def set_exception(self, error: BaseException, /) -> None:
        self._buyer.set_exception(error)


def _fail(error: BaseException) -> Reply:
    raise error


class _Form(NamedTuple):
    """A reply cut open where one word of each order goes."""

    status: int
    fields: bytes
    before: bytes
    after: bytes

    @classmethod
    def cut(cls, rendered: Reply) -> Self:
        """Cut a reply that was rendered with _BLANK in the word's place."""
        before, blank, after = rendered.body.partition(_BLANK.encode())
        assert blank, "rendered without a blank"
        return cls(rendered.status, rendered.fields, before, after)

    def fill(self, word: bytes) -> Reply:
        """Put the word in; it holds no character that JSON would escape."""
        return Reply(self.status, self.fields, b"%b%b%b" % (self.before, word, self.after))


def _ticket_fields(accepted: Accepted) -> bytes:
    replayed = _REPLAYED if accepted.is_replay else b""
    return b"%bLocation: /v1/orders/%b\r\n%b" % (
        _TICKET_FIELDS,
        accepted.order_id.encode(),
        replayed,
    )


class _Tickets:
    """Writes tickets: all orders of a batch have the same moment, so one form serves many."""

    def __init__(self) -> None:
        self._forms: dict[tuple[str, int, int], _Form] = {}

    def write(self, sale: Sale, click: Click, accepted: Accepted) -> Reply:
        order_id = accepted.order_id.encode()
        if click.reference:
            ticket = view_ticket(accepted.order_id, sale, click.quantity, click.reference, accepted)
            body = _ENCODER.encode(ticket)
        else:
            form = self._form(sale, click, accepted)
            body = b"%b%b%b" % (form.before, order_id, form.after)
        return Reply(HTTPStatus.ACCEPTED, _ticket_fields(accepted), body)

    def _form(self, sale: Sale, click: Click, accepted: Accepted) -> _Form:
        known = (sale.id, click.quantity, accepted.placed_at_ms)
        form = self._forms.get(known)
        if form is None:
            if len(self._forms) >= _REPLIES_MAX:
                self._forms.clear()
            ticket = view_ticket(_BLANK, sale, click.quantity, "", accepted)
            rendered = Reply(HTTPStatus.ACCEPTED, _TICKET_FIELDS, _ENCODER.encode(ticket))
            form = self._forms[known] = _Form.cut(rendered)
        return form


@lru_cache(maxsize=256)  # the paths of a rush are few
def _sale_named_in(path: str) -> str | None:
    """Read the sale's id off the path of the route; None for any other path."""
    if path.startswith(_BEFORE) and path.endswith(_AFTER):
        return path[len(_BEFORE) : -len(_AFTER)]
    return None


def _read(raw: bytes) -> PlaceOrder | None:
    """Read a body; None when somebody else must say what is wrong with it."""
    if b"\\u0000" in raw:
        return None
    try:
        return _DECODER.decode(raw or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_read_again = lru_cache(maxsize=256)(_read)  # `{"quantity":1}` is what nearly everybody sends
