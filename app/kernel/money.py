"""Money: whole minor units and a currency; never a float."""

from dataclasses import dataclass
from typing import Final

EXPONENTS: Final = {"CNY": 2, "USD": 2, "EUR": 2, "HKD": 2, "GBP": 2, "JPY": 0, "KWD": 3}
"""Decimal places of each currency we sell in (ISO 4217, list one)."""

AMOUNT_MINOR_MAX: Final = 9_223_372_036_854_775_807  # a Postgres bigint


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency in its minor unit (fen, cents)."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        assert self.currency in EXPONENTS, self.currency
        assert abs(self.amount_minor) <= AMOUNT_MINOR_MAX

    def __add__(self, other: "Money") -> "Money":
        assert self.currency == other.currency, "two currencies do not add up"
        return Money(self.amount_minor + other.amount_minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        assert self.currency == other.currency, "two currencies do not subtract"
        return Money(self.amount_minor - other.amount_minor, self.currency)

    def __mul__(self, quantity: int) -> "Money":
        return Money(self.amount_minor * quantity, self.currency)

    def __str__(self) -> str:
        places = EXPONENTS[self.currency]
        sign = "-" if self.amount_minor < 0 else ""
        whole, rest = divmod(abs(self.amount_minor), 10**places)
        if not places:
            return f"{sign}{whole} {self.currency}"
        return f"{sign}{whole}.{rest:0{places}d} {self.currency}"
