"""
Every click of a run with its times, so that promises can be checked afterwards.

A click is written down when its answer came or was given up, which is enough:
the run awaits every click that it began (`History.begun` says how many).
"""

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from loadtest.answers import ACCEPTED, FINAL, Outcome
from loadtest.errors import NotAHistory
from loadtest.plan import Ending

_TITLE: Final = "doorbuster history 1"


class Intent(NamedTuple):
    """What a shopper wants once, however often they click: the owner of one key."""

    sale: str
    shopper: str
    key: str


class Click(NamedTuple):
    """
    One POST of an order and its answer.

    Attributes:
        sale, shopper, key: which intent it belongs to.
        planned_at: when the shopper meant to click; monotonic seconds, as the next two.
        sent_at: when the request left.
        answered_at: when the answer was whole, or the wait given up.
        outcome: class of the answer.
        order_id: of an accepted order, else empty.
        code: of a refusal, else empty.
        waited: the shopper asked for the row (`Prefer: wait`).
        status: of HTTP; 0 without an answer.
    """

    sale: str
    shopper: str
    key: str
    planned_at: float
    sent_at: float
    answered_at: float
    outcome: Outcome
    order_id: str
    code: str
    waited: bool
    status: int

    @property
    def intent(self) -> Intent:
        """What the shopper wanted; all repeats of a click share it."""
        return Intent(self.sale, self.shopper, self.key)


class GroupTerms(NamedTuple):
    """Of a sale that is bought in groups."""

    size: int
    window_seconds: int


class SaleTerms(NamedTuple):
    """What a sale promised, against which its orders are checked; `group` of a group sale."""

    sale: str
    stock: int
    limit_per_shopper: int
    price_minor: int
    currency: str
    group: GroupTerms | None = None


class _Heading(NamedTuple):
    """The first line of a file."""

    title: str
    begun: int
    sales: list[SaleTerms]
    endings: dict[str, Ending]


@dataclass(slots=True)
class History:
    """
    The clicks of one run.

    Attributes:
        sales: terms by sale id.
        tokens: by shopper; never written to a file.
        clicks: in the order of their answers.
        endings: what its shopper meant to do with an order, by order id.
        begun: clicks sent, answered or not.
    """

    sales: dict[str, SaleTerms] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    clicks: list[Click] = field(default_factory=list)
    endings: dict[str, Ending] = field(default_factory=dict)
    begun: int = 0

    def counts(self, sale: str | None = None) -> Counter[Outcome]:
        """Count clicks by class, of one sale or of all."""
        return Counter(c.outcome for c in self.clicks if sale in {None, c.sale})

    def troubles(self) -> Counter[str]:
        """Count by code what was neither accepted nor finally refused."""
        return Counter(click.code for click in self.clicks if click.outcome not in FINAL)

    def accepted(self) -> dict[str, Click]:
        """Give the first accepting click of each order, by order id."""
        first: dict[str, Click] = {}
        for click in self.clicks:
            if click.outcome in ACCEPTED:
                first.setdefault(click.order_id, click)
        return first

    def ids_by_intent(self) -> dict[Intent, set[str]]:
        """Give the order ids that each key was ever answered with."""
        ids: defaultdict[Intent, set[str]] = defaultdict(set)
        for click in self.clicks:
            if click.order_id:
                ids[click.intent].add(click.order_id)
        return dict(ids)

    def unsettled(self) -> set[Intent]:
        """Give the intents that never got a final answer."""
        seen: set[Intent] = set()
        settled: set[Intent] = set()
        for click in self.clicks:
            seen.add(click.intent)
            if click.outcome in FINAL:
                settled.add(click.intent)
        return seen - settled

    def write(self, path: Path) -> None:
        """Write all but the tokens, as gzipped lines of JSON that only the owner may read."""
        path.touch(mode=0o600)
        with gzip.open(path, "wb", compresslevel=3) as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in self._rows())

    @classmethod
    def read(cls, path: Path) -> Self:
        """
        Read what `write` wrote; `tokens` stays empty.

        Raises:
            NotAHistory: the file was not written by a run.
        """
        with gzip.open(path, "rb") as file:
            rows = iter(file)
            heading = _read_heading(path, next(rows, b""))
            decoder = msgspec.json.Decoder(Click)
            return cls(
                sales={terms.sale: terms for terms in heading.sales},
                clicks=[decoder.decode(row) for row in rows],
                endings=heading.endings,
                begun=heading.begun,
            )

    def _rows(self) -> Iterator[object]:
        yield _Heading(_TITLE, self.begun, list(self.sales.values()), self.endings)
        yield from self.clicks


def _read_heading(path: Path, row: bytes) -> _Heading:
    try:
        heading = msgspec.json.decode(row, type=_Heading)
    except msgspec.DecodeError as exc:
        raise NotAHistory(path) from exc
    if heading.title != _TITLE:
        raise NotAHistory(path)
    return heading
