"""Where an order goes: what may be said of it, and how much of it is shown; pure."""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

RECEIVER_CHARACTERS_MAX: Final = 64
ADDRESS_CHARACTERS_MAX: Final = 256
HOME_COUNTRY: Final = "+86"

_MOBILE: Final = re.compile(r"\+[1-9][0-9]{6,14}|1[0-9]{10}", re.ASCII)
_MASK: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    Who gets an order, and where; personal, so that no repr tells any of it.

    Attributes:
        receiver: 1..64 characters.
        mobile: E.164, or the 11 digits of a number at home.
        address: 1..256 characters.
    """

    receiver: str = field(repr=False)
    mobile: str = field(repr=False)
    address: str = field(repr=False)


def tidy_delivery(receiver: str, mobile: str, address: str) -> Delivery:
    """Write what a shopper typed in one form: composed characters, no space around it."""
    return Delivery(
        receiver=unicodedata.normalize("NFC", receiver).strip(),
        mobile=mobile.strip(),
        address=unicodedata.normalize("NFC", address).strip(),
    )


def faults_of_delivery(delivery: Delivery) -> list[tuple[str, str]]:
    """
    Return every rule that the details break, as (path, message) that repeats none of them.

    A label must be printed and read aloud: nothing invisible anywhere, and no
    pictures or signs in a name. An address may hold signs: № 5, 3 ½.
    """
    faults = []
    if not 1 <= len(delivery.receiver) <= RECEIVER_CHARACTERS_MAX:
        faults.append(("$.receiver", f"must have 1 to {RECEIVER_CHARACTERS_MAX} characters"))
    elif any(_is_unspeakable(one) for one in delivery.receiver):
        faults.append(("$.receiver", "must be letters, digits, spaces and punctuation"))
    if _MOBILE.fullmatch(delivery.mobile) is None:
        faults.append(("$.mobile", "must be E.164, such as +8613800000000, or 11 digits"))
    if not 1 <= len(delivery.address) <= ADDRESS_CHARACTERS_MAX:
        faults.append(("$.address", f"must have 1 to {ADDRESS_CHARACTERS_MAX} characters"))
    elif any(_is_invisible(one) for one in delivery.address):
        faults.append(("$.address", "must not hold control or invisible characters"))
    return faults


def _is_invisible(character: str) -> bool:
    """Tell controls, bidirectional marks, private and unassigned ones, line separators."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in {"Zl", "Zp"}


def _is_unspeakable(character: str) -> bool:
    return _is_invisible(character) or unicodedata.category(character)[0] == "S"


def full_mobile(mobile: str) -> str:
    """Write a number in E.164, so that both ways of typing it are found by one search."""
    return mobile if mobile.startswith("+") else HOME_COUNTRY + mobile


def is_mobile(text: str) -> bool:
    """Say whether a text is a number that delivery details may hold."""
    return _MOBILE.fullmatch(text) is not None


def mask(delivery: Delivery) -> Delivery:
    """Show enough to recognise one's own details by, and not enough to find anybody."""
    return Delivery(
        receiver=delivery.receiver[0] + _MASK * 2,
        mobile=mask_mobile(delivery.mobile),
        address=delivery.address[: min(6, len(delivery.address) // 2)] + _MASK * 4,
    )


def mask_mobile(mobile: str) -> str:
    """Show the first three digits and the last two."""
    return f"{mobile[:3]}{_MASK * (len(mobile) - 5)}{mobile[-2:]}"
