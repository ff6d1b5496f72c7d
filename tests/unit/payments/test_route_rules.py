"""Who may take a payment, and in which order, as tables."""

from collections import Counter

import pytest

from app.payments.provider import Product
from app.payments.route_rules import Candidate, RouteRule, RouteTerms, is_eligible, rank_routes
from app.payments.routing import RouteWish

NUMBER = "0123456789ABCDEFGHJKMNPQRS"
NO_EXPLORING = 0


def wish(**changes) -> RouteWish:
    told = {
        "number": NUMBER,
        "provider": "wechatpay",
        "product": Product.QR,
        "amount_minor": 10_000,
        "currency": "CNY",
        "merchant": "acme",
        "sale": "spring",
    }
    return RouteWish(**{**told, **changes})


def candidate(account: str, *, shut: bool = False, failures: int = 0, spent: int = 0, **terms):
    return Candidate(
        account=account,
        products=frozenset({Product.QR, Product.JSAPI}),
        terms=RouteTerms(provider="wechatpay", account=account, **terms),
        is_shut=shut,
        spent_minor=spent,
        failures=failures,
        is_down=failures >= 15,
    )


def rule(*accounts: str, **changes) -> RouteRule:
    return RouteRule(**{"provider": "wechatpay", "accounts": accounts, **changes})


@pytest.mark.parametrize(
    ("terms", "asked", "eligible"),
    [
        ({}, {}, True),
        ({"disabled": True}, {}, False),
        ({"shut": True}, {}, False),
        ({}, {"product": Product.PAGE}, False),
        ({"products": (Product.JSAPI,)}, {}, False),
        ({"products": (Product.JSAPI, Product.QR)}, {}, True),
        ({"currencies": ("USD",)}, {}, False),
        ({"currencies": ("USD", "CNY")}, {}, True),
        ({"amount_minor_min": 10_000}, {}, True),
        ({"amount_minor_min": 10_001}, {}, False),
        ({"amount_minor_max": 10_000}, {}, True),
        ({"amount_minor_max": 9_999}, {}, False),
        ({"daily_minor_max": 15_000, "spent": 5_000}, {}, True),
        ({"daily_minor_max": 15_000, "spent": 5_001}, {}, False),
    ],
)
def test_what_makes_an_account_eligible(terms, asked, eligible):
    assert is_eligible(candidate("a", **terms), wish(**asked)) is eligible


@pytest.mark.parametrize(
    ("terms", "amount_minor", "cost_minor"),
    [
        ({"cost_bps": 60}, 10_000, 60),
        ({"cost_bps": 60}, 83, 0),  # 0.498
        ({"cost_bps": 50}, 100, 1),  # 0.5 goes up
        ({"cost_bps": 50}, 99, 0),  # 0.495
        ({"cost_bps": 60, "cost_fixed_minor": 30}, 10_000, 90),
        ({"cost_bps": 60, "cost_minor_min": 100}, 10_000, 100),
        ({"cost_bps": 60, "cost_minor_max": 50}, 10_000, 50),
        ({}, 10_000, 0),
    ],
)
def test_what_a_payment_costs(terms, amount_minor, cost_minor):
    assert RouteTerms(provider="p", **terms).cost_minor(amount_minor) == cost_minor


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"provider": "alipay"}, False),
        ({"merchant": "acme"}, True),
        ({"merchant": "other"}, False),
        ({"sale": "spring"}, True),
        ({"sale": "autumn"}, False),
        ({"amount_minor_min": 10_000, "amount_minor_max": 10_000}, True),
        ({"amount_minor_min": 10_001}, False),
        ({"amount_minor_max": 9_999}, False),
    ],
)
def test_what_a_rule_is_for(changes, fits):
    assert rule("a", **changes).fits(wish()) is fits


CHEAP = {"cost_bps": 38}
DEAR = {"cost_bps": 60}


@pytest.mark.parametrize(
    ("candidates", "rules", "ranked"),
    [
        # cost decides among equals
        ([candidate("a", **DEAR), candidate("b", **CHEAP)], [], "ba"),
        # results before cost
        ([candidate("a", **DEAR), candidate("b", failures=1, **CHEAP)], [], "ab"),
        # the split before results
        ([candidate("a", failures=9, weight=1), candidate("b")], [], "ab"),
        # a rule before the split
        ([candidate("a", weight=1), candidate("b"), candidate("c", weight=0)], [rule("c")], "cab"),
        # the first rule that fits counts, and what it names in its order
        ([candidate("a"), candidate("b")], [rule("a", merchant="x"), rule("b", "a")], "ba"),
        # what is down comes last, whatever names it, in the settings' order
        (
            [candidate("a", failures=15, weight=9), candidate("b", failures=30), candidate("c")],
            [rule("a")],
            "cab",
        ),
        # nothing makes a route eligible
        ([candidate("a", shut=True), candidate("b", disabled=True)], [rule("a")], ""),
        # a rule for accounts that are shut leaves the rest
        ([candidate("a", shut=True), candidate("b")], [rule("a")], "b"),
    ],
)  # fmt: skip
def test_the_stages_in_their_order(candidates, rules, ranked):
    assert "".join(rank_routes(candidates, wish(), rules, NO_EXPLORING)) == ranked


def test_equals_are_told_apart_by_the_order_and_always_alike():
    candidates = [candidate("a"), candidate("b")]
    first = {
        number: rank_routes(candidates, wish(number=number), [], NO_EXPLORING)
        for number in (f"{index:026d}" for index in range(200))
    }
    again = {
        number: rank_routes(candidates[::-1], wish(number=number), [], NO_EXPLORING)
        for number in first
    }
    assert first == again
    assert 70 <= sum(ranked[0] == "a" for ranked in first.values()) <= 130


def test_the_volume_is_split_by_weight():
    candidates = [candidate("a", weight=3), candidate("b", weight=1), candidate("c")]
    leads = Counter(
        rank_routes(candidates, wish(number=f"{index:026d}"), [], NO_EXPLORING)[0]
        for index in range(1_000)
    )
    assert 700 <= leads["a"] <= 800
    assert leads["a"] + leads["b"] == 1_000


def test_some_orders_explore_and_so_meet_what_is_down():
    candidates = [candidate("a"), candidate("b", failures=30)]
    leads = Counter(
        rank_routes(candidates, wish(number=f"{index:026d}"), [], 10)[0] for index in range(2_000)
    )
    assert 60 <= leads["b"] <= 140  # half of a tenth


def test_an_order_that_a_rule_names_an_account_for_does_not_explore():
    candidates = [candidate("a"), candidate("b")]
    for index in range(100):
        ranked = rank_routes(candidates, wish(number=f"{index:026d}"), [rule("b")], 100)
        assert ranked == ["b", "a"]
