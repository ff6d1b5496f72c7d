from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settlement.fact import Refund
from app.settlement.tax import TaxBook, tax_within


@pytest.mark.parametrize(
    ("gross_minor", "rate", "tax_minor"),
    [
        (8880, 1300, 1022),
        (1, 1300, 0),
        (4, 1300, 0),
        (5, 1300, 1),
        (10_000, 0, 0),
        (10_600, 600, 600),
    ],
)
def test_tax_within__known_prices(gross_minor, rate, tax_minor):
    assert tax_within(gross_minor, rate) == tax_minor


@given(gross_minor=st.integers(1, 10**15), rate=st.sampled_from([0, 100, 300, 600, 900, 1300]))
def test_tax_within__is_the_rounded_exact_tax(gross_minor, rate):
    exact = Fraction(gross_minor * rate, 10_000 + rate)
    assert abs(tax_within(gross_minor, rate) - exact) <= Fraction(1, 2)


def test_no_price_up_to_200_yuan_lies_on_a_half():
    """So half-up is half-even, and net first is tax first (settlement design, section 5)."""
    for rate in (1300, 900, 600, 500, 300, 100):
        for gross_minor in range(1, 20_001):
            assert gross_minor * 10_000 * 2 % (10_000 + rate) != 0 or (
                gross_minor * 10_000 % (10_000 + rate) == 0
            )


def refund_of(number, amount_minor):
    return Refund(
        refund_no=number,
        order_id="order",
        attempt="attempt",
        provider="sandbox",
        merchant="",
        amount_minor=amount_minor,
        currency="CNY",
        suspense=False,
    )


@given(amounts=st.lists(st.integers(1, 5_000), min_size=1, max_size=8))
def test_refunds_of_an_order_take_back_exactly_the_tax_of_their_sum(amounts):
    book = TaxBook([], 1300)
    reversals = [book.reverse(refund_of(f"R{n}", amount)) for n, amount in enumerate(amounts)]
    assert sum(reversal.tax_minor for reversal in reversals) == tax_within(sum(amounts), 1300)
    for reversal, amount in zip(reversals, amounts, strict=True):
        assert reversal.net_minor >= 0
        assert reversal.tax_minor >= 0
        assert reversal.net_minor + reversal.tax_minor == amount


def test_a_refund_told_again_divides_as_it_did():
    book = TaxBook([], 1300)
    first = book.reverse(refund_of("R1", 333))
    book.reverse(refund_of("R2", 334))
    assert book.reverse(refund_of("R1", 333)) == first
    assert TaxBook([first], 1300).reverse(refund_of("R1", 333)) == first


def test_a_lower_rate_later_never_takes_back_a_negative_tax():
    high = TaxBook([], 1300).reverse(refund_of("R1", 10_000))
    low = TaxBook([high], 100).reverse(refund_of("R2", 100))
    assert (low.net_minor, low.tax_minor) == (100, 0)
