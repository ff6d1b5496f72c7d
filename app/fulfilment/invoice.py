"""What a shopper wants written on the invoice; pure."""

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_TAX_NUMBER: Final = re.compile(r"[0-9A-Z]{15,20}", re.ASCII)
TITLE_CHARACTERS_MAX: Final = 128


class InvoiceKind(StrEnum):
    """To whom it is made out."""

    PERSONAL = "personal"
    COMPANY = "company"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceWish:
    """To whom the invoice goes; a person's name is personal, so that no repr tells it."""

    kind: InvoiceKind
    title: str = field(repr=False)
    tax_number: str | None = field(repr=False)


def faults_of_wish(wish: InvoiceWish) -> list[tuple[str, str]]:
    """Return every rule that the wish breaks, as (path, message) that repeats none of it."""
    faults = []
    visible = all(unicodedata.category(one)[0] not in "CS" for one in wish.title)
    if not (1 <= len(wish.title) <= TITLE_CHARACTERS_MAX and visible and wish.title.strip()):
        faults.append(("$.title", "must be 1 to 128 letters, digits, spaces and punctuation"))
    is_taxed = wish.tax_number is not None
    if is_taxed != (wish.kind is InvoiceKind.COMPANY):
        faults.append(("$.tax_number", "belongs to a company, and only to one"))
    elif wish.tax_number is not None and _TAX_NUMBER.fullmatch(wish.tax_number) is None:
        faults.append(("$.tax_number", "must be 15 to 20 capitals and digits"))
    return faults
