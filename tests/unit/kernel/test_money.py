import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.money import AMOUNT_MINOR_MAX, EXPONENTS, Money

amounts = st.integers(-(10**15), 10**15)


@given(left=amounts, right=amounts)
def test_what_is_added_can_be_taken_away(left, right):
    assert Money(left, "CNY") + Money(right, "CNY") - Money(right, "CNY") == Money(left, "CNY")


@given(price=st.integers(1, 10**12), quantity=st.integers(1, 1000))
def test_a_total_is_price_times_quantity_to_the_last_unit(price, quantity):
    total = Money(0, "CNY")
    for _ in range(min(quantity, 20)):
        total += Money(price, "CNY")

    assert Money(price, "CNY") * min(quantity, 20) == total
    assert (Money(price, "CNY") * quantity).amount_minor == price * quantity


@pytest.mark.parametrize("operation", ["__add__", "__sub__"])
def test_two_currencies_are_a_bug(operation):
    with pytest.raises(AssertionError, match="two currencies"):
        getattr(Money(1, "CNY"), operation)(Money(1, "USD"))


def test_an_unknown_currency_is_a_bug():
    with pytest.raises(AssertionError, match="XXX"):
        Money(1, "XXX")


def test_an_amount_that_postgres_cannot_hold_is_a_bug():
    assert Money(AMOUNT_MINOR_MAX, "CNY").amount_minor == 2**63 - 1
    with pytest.raises(AssertionError):
        Money(AMOUNT_MINOR_MAX + 1, "CNY")


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (0, "CNY", "0.00 CNY"),
        (1, "CNY", "0.01 CNY"),
        (-1, "CNY", "-0.01 CNY"),
        (-12_345, "CNY", "-123.45 CNY"),
        (100_000, "JPY", "100000 JPY"),
        (1_005, "KWD", "1.005 KWD"),
    ],
)
def test_money_reads_as_people_write_it(amount_minor, currency, text):
    assert str(Money(amount_minor, currency)) == text


@given(amount=amounts, currency=st.sampled_from(sorted(EXPONENTS)))
def test_the_text_holds_every_minor_unit(amount, currency):
    digits = str(Money(amount, currency)).split()[0].replace(".", "")

    assert int(digits) == amount
