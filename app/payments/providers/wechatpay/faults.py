"""
What a refusal of WeChat Pay's comes to, by what was asked: one table for each.

Only signed refusals get here. A code that its table does not hold is unknown, and
somebody is told: a refusal taken for final by mistake could pay an order twice.
Nothing is read out of the message's text.

Source:
    docs/PAYMENTS.md §1.9 and §4.6.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Meaning(StrEnum):
    """What one refusal means to whoever asked."""

    REJECTED = "rejected"  # this request can never succeed, and never did
    NOT_FOUND = "not_found"  # WeChat Pay knows no such thing
    DONE = "done"  # what was asked for is so already
    LATER = "later"  # it is being made
    NOTHING = "nothing"  # there is nothing to list
    UNKNOWN = "unknown"  # it says nothing of what became of the request


# Our request or our contract is wrong: repeating the same bytes gives the same answer.
_OURS: Final[Mapping[str, Meaning]] = dict.fromkeys(
    ("PARAM_ERROR", "SIGN_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS"),
    Meaning.REJECTED,
)
# WeChat Pay is at fault or in a hurry; also where a status other than 5xx carries it.
_THEIRS: Final[Mapping[str, Meaning]] = dict.fromkeys(
    ("SYSTEM_ERROR", "SERVICE_UNAVAILABLE", "FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"),
    Meaning.UNKNOWN,
)
_QUESTION: Final[Mapping[str, Meaning]] = {**dict.fromkeys(_OURS, Meaning.UNKNOWN), **_THEIRS}

CREATE: Final[Mapping[str, Meaning]] = {
    **_OURS,
    **_THEIRS,
    "RULE_LIMIT": Meaning.REJECTED,
    "TRADE_ERROR": Meaning.REJECTED,
    "USER_ACCOUNT_ABNORMAL": Meaning.REJECTED,
    "ORDER_CLOSED": Meaning.REJECTED,
    # Both are also the answer to a repeated number that may be paid or payable: ask.
    "OUT_TRADE_NO_USED": Meaning.UNKNOWN,
    "INVALID_REQUEST": Meaning.UNKNOWN,
}
QUERY: Final[Mapping[str, Meaning]] = {**_QUESTION, "ORDER_NOT_EXIST": Meaning.NOT_FOUND}
CLOSE: Final[Mapping[str, Meaning]] = {
    **_OURS,
    **_THEIRS,
    "ORDER_CLOSED": Meaning.DONE,
    # Not closed; whoever asked asks next how the payment stands.
    "ORDER_NOT_EXIST": Meaning.REJECTED,
    "INVALID_REQUEST": Meaning.REJECTED,
    "TRADE_ERROR": Meaning.REJECTED,
}
REFUND: Final[Mapping[str, Meaning]] = {
    **_OURS,
    **_THEIRS,
    "INVALID_REQUEST": Meaning.REJECTED,
    "TRADE_ERROR": Meaning.REJECTED,
    "RULE_LIMIT": Meaning.REJECTED,
    "USER_ACCOUNT_ABNORMAL": Meaning.REJECTED,
    "ORDER_NOT_EXIST": Meaning.REJECTED,
    "RESOURCE_NOT_EXISTS": Meaning.REJECTED,
    # The merchant's balance there is short: the same number succeeds once it is not.
    "NOT_ENOUGH": Meaning.UNKNOWN,
}
QUERY_REFUND: Final[Mapping[str, Meaning]] = {
    **_QUESTION,
    "RESOURCE_NOT_EXISTS": Meaning.NOT_FOUND,
}
TRANSFER: Final[Mapping[str, Meaning]] = {
    **_OURS,
    **_THEIRS,
    # A transfer's number is never given up on a refusal that may tell of a repeat.
    "INVALID_REQUEST": Meaning.UNKNOWN,
    "ALREADY_EXISTS": Meaning.UNKNOWN,
    "RULE_LIMIT": Meaning.UNKNOWN,
    "NOT_ENOUGH": Meaning.UNKNOWN,
}
QUERY_TRANSFER: Final[Mapping[str, Meaning]] = {
    **_QUESTION,
    "NOT_FOUND": Meaning.NOT_FOUND,
    "RESOURCE_NOT_EXISTS": Meaning.NOT_FOUND,
}
BILL: Final[Mapping[str, Meaning]] = {
    **_OURS,
    **_THEIRS,
    "NO_STATEMENT_EXIST": Meaning.NOTHING,
    "STATEMENT_CREATING": Meaning.LATER,
    "INVALID_REQUEST": Meaning.REJECTED,
}

# Of whoever asked, not of what was asked: another merchant account may succeed.
ACCOUNT: Final = frozenset(
    {"SIGN_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "RULE_LIMIT"}
)

# Known, without an effect, and still a person's to mend: no money, or a number used twice.
ALARMING: Final = frozenset({"NOT_ENOUGH", "OUT_TRADE_NO_USED", "ALREADY_EXISTS", *_OURS})
