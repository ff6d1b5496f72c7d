import pytest

from loadtest.answers import Outcome
from loadtest.figures import measure, percentile, three
from loadtest.history import Click, History, SaleTerms


def clicked(planned: float, sent: float, answered: float, **changed) -> Click:
    click = Click(
        "s", "ann", "k", planned, sent, answered, Outcome.WON, "A", "", waited=False, status=202
    )
    return click._replace(**changed)


def a_history(stock: int, *clicks: Click) -> History:
    return History({"s": SaleTerms("s", stock, 1, 1, "CNY")}, clicks=list(clicks))


@pytest.mark.parametrize(("share", "value"), [(0.01, 1), (0.50, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank(share, value):
    assert percentile(list(range(1, 101)), share) == value
    assert percentile([3], share) == 3


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (9.876, "9.88"),
        (99.96, "100"),
        (123.4, "123"),
        (12_345, "12,300"),
    ],
)
def test_numbers_have_three_significant_digits(number, text):
    assert three(number) == text


def test_both_latencies_stand_side_by_side():
    history = a_history(1, clicked(10.0, 10.4, 10.5))
    figures = measure(history, 10.0, 1.0)
    assert figures.click_to_ticket.p50_ms == pytest.approx(500)
    assert figures.sent_to_ticket.p50_ms == pytest.approx(100)


def test_rates_count_orders_and_not_refusals():
    clicks = [
        clicked(10.0, 10.0, 10.5),
        clicked(10.0, 10.0, 11.0, key="k2", order_id="B", status=201, waited=True),
        clicked(10.0, 10.0, 12.0, key="k3", order_id="", outcome=Outcome.SOLD_OUT, status=409),
    ]
    figures = measure(a_history(2, *clicks), 10.0, 1.0)
    assert figures.accepted_per_second == pytest.approx(4.0)
    assert figures.durable_per_second == pytest.approx(2.0)
    assert figures.answered_per_second == pytest.approx(1.5)
    assert figures.click_to_row.count == 1


def test_units_sold_again_do_not_slow_the_first_stock_down():
    clicks = [clicked(10.0, 10.0, 10.5), clicked(10.9, 10.9, 14.0, order_id="B", key="k2")]
    figures = measure(a_history(1, *clicks), 10.0, 1.0)
    assert figures.accepted_per_second == pytest.approx(2.0)


def test_a_click_that_had_to_be_repeated_counts_from_the_first():
    throttled = clicked(10.0, 10.0, 10.1, outcome=Outcome.THROTTLED, order_id="", status=503)
    repeated = clicked(12.0, 12.0, 12.1)
    figures = measure(a_history(1, throttled, repeated), 10.0, 1.0)
    assert figures.click_to_ticket.p50_ms == pytest.approx(2_100)
    assert figures.sent_to_ticket.p50_ms == pytest.approx(100)
    assert figures.click_to_answer.count == 1


def test_what_came_after_the_rush_is_left_out():
    figures = measure(a_history(1, clicked(20.0, 20.0, 20.1)), 10.0, 1.0)
    assert figures.click_to_ticket.count == 0
    assert figures.accepted_per_second == 0.0
    assert figures.click_to_ticket.p99_ms is None


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([], None),
        ([(10.4, 0), (10.6, 5)], None),
        ([(10.4, 0), (10.6, 5), (10.9, 0), (11.9, 0)], 0.4),
        ([(10.5, 0)], 0.0),
    ],
)
def test_the_drain_ends_at_the_first_look_that_saw_nothing(looks, seconds):
    figures = measure(a_history(1, clicked(10.0, 10.0, 10.5)), 10.0, 1.0, looks)
    assert figures.drain_seconds == (None if seconds is None else pytest.approx(seconds))
