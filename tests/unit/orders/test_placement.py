"""What a click becomes: whose bucket it is, and what makes two clicks the same."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from app.orders.placement import Click, bucket_of, placement_request
from tests.unit.sales.test_sale import SALE

CLICK = Click("ann", "key-0123456789abcdef", 1, "ref")


@given(shopper=st.text(min_size=1), buckets=st.integers(1, 64))
def test_a_shopper_always_comes_to_the_same_bucket(shopper, buckets):
    assert bucket_of(shopper, buckets) == bucket_of(shopper, buckets)
    assert 0 <= bucket_of(shopper, buckets) < buckets


def test_shoppers_spread_over_the_buckets():
    served = [bucket_of(f"shopper-{i}", 4) for i in range(4_000)]

    assert all(900 < served.count(bucket) < 1_100 for bucket in range(4))


def test_the_same_click_is_the_same_request():
    assert placement_request(SALE, CLICK) == placement_request(SALE, CLICK)


def test_another_shopper_or_key_is_another_order():
    hashes = {
        placement_request(SALE, click).key_hash
        for click in (
            CLICK,
            CLICK._replace(shopper="bob"),
            CLICK._replace(idempotency_key="key-0123456789abcdeg"),
        )
    }
    assert len(hashes) == 3


def test_other_content_or_another_price_has_another_fingerprint():
    wanted = [
        (SALE, CLICK),
        (SALE, CLICK._replace(quantity=2)),
        (replace(SALE, price_minor=1), CLICK),
        (replace(SALE, sku="coffee"), CLICK),
        (replace(SALE, currency="USD"), CLICK),
        (replace(SALE, number=2), CLICK),
    ]
    assert len({placement_request(*one).fingerprint for one in wanted}) == len(wanted)


def test_the_shoppers_own_reference_is_no_part_of_the_fingerprint():
    other = CLICK._replace(reference="another")

    assert placement_request(SALE, other).fingerprint == placement_request(SALE, CLICK).fingerprint
