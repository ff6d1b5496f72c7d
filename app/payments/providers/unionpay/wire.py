"""
How UnionPay writes amounts, instants and answers; pure.

Requests and notifications are forms. The answer to a request is not: its pairs
stand there undecoded, and a value in braces or brackets may hold `&` and `=`.

Source:
    docs/PAYMENTS.md §3.
"""

import re
from datetime import datetime, timedelta, timezone
from typing import Final

from app.kernel.clock import is_in_reach
from app.payments.provider import MalformedMessage
from app.payments.providers.forms import FIELDS_MAX

BEIJING: Final = timezone(timedelta(hours=8), "Asia/Shanghai")  # no summer time since 1991
CURRENCY: Final = "CNY"
CURRENCY_CODES: Final = {"156": CURRENCY}
AMOUNT_MINOR_MAX: Final = 999_999_999_999  # twelve digits

_AMOUNT: Final = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
_INSTANT: Final = re.compile(r"[0-9]{14}", re.ASCII)
_TRACE: Final = re.compile(r"[0-9]{10}", re.ASCII)
_CLOSERS: Final = {"{": "}", "[": "]"}


def to_compact(moment: datetime) -> str:
    """Write an aware instant as yyyyMMddHHmmss of Beijing, rounded down."""
    assert moment.tzinfo is not None
    return moment.astimezone(BEIJING).strftime("%Y%m%d%H%M%S")


def from_compact(text: str) -> datetime:
    """
    Read yyyyMMddHHmmss.

    Raises:
        ValueError: it is not such a text, or no such instant.
    """
    if _INSTANT.fullmatch(text) is None:
        message = "not yyyyMMddHHmmss"
        raise ValueError(message)
    moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=BEIJING)
    if not is_in_reach(moment):
        message = "out of reach"
        raise ValueError(message)
    return moment


def traced_at(trace_time: str, sent_at: datetime) -> datetime | None:
    """
    Read MMddHHmmss, which names no year: the first such instant since a day before it was sent.

    Returns:
        None when it is not such a text, or falls on no such day.
    """
    if _TRACE.fullmatch(trace_time) is None:
        return None
    earliest = sent_at - timedelta(days=1)
    for year in (earliest.year, earliest.year + 1):
        try:
            moment = from_compact(f"{year:04d}{trace_time}")
        except ValueError:
            continue
        if moment >= earliest:
            return moment
    return None


def read_amount(text: str) -> int:
    """
    Read whole fen.

    Raises:
        ValueError: it is not plain decimal digits.
    """
    if _AMOUNT.fullmatch(text) is None:
        message = "not a whole number of fen"
        raise ValueError(message)
    return int(text)


def read_answer(raw: bytes) -> dict[str, str]:
    """
    Read the pairs of an answer to a request.

    Raises:
        MalformedMessage: it is no such answer, or a name is there twice.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage(why="an answer is UTF-8") from error
    fields: dict[str, str] = {}
    for pair in _split_pairs(text):
        name, equals, value = pair.partition("=")
        if not name or not equals or name in fields or len(fields) == FIELDS_MAX:
            raise MalformedMessage(why="a pair without a name, or a name twice")
        fields[name] = value
    return fields


def _split_pairs(text: str) -> list[str]:
    pairs: list[str] = []
    start, closer = 0, ""
    for mark in re.finditer(r"[&{}\[\]]", text):
        if closer:
            closer = "" if mark[0] == closer else closer
        elif mark[0] == "&":
            pairs.append(text[start : mark.start()])
            start = mark.end()
        else:
            closer = _CLOSERS.get(mark[0], "")
    if closer:
        raise MalformedMessage(why="a group does not end")
    return [*pairs, text[start:]]
