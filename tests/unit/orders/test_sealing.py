"""Order ids: what we wrote is read back, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import BadConfiguration
from app.kernel.ids import BUCKET_MAX, EPOCH_MAX, ORDER_ID_LENGTH, SALE_MAX, SEQ_MAX, OrderKey
from app.kernel.ids import shopper_tag as tag_of
from app.orders.sealing import OrderIds

IDS = OrderIds(b"0123456789abcdef")
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

keys = st.builds(
    OrderKey,
    sale=st.integers(1, SALE_MAX),
    bucket=st.integers(0, BUCKET_MAX),
    epoch=st.integers(0, EPOCH_MAX),
    seq=st.integers(0, SEQ_MAX),
)


@given(key=keys, shopper=st.text(min_size=1))
def test_an_id_is_read_back_by_its_shopper(key, shopper):
    order_id = IDS.write(key, shopper)

    assert len(order_id) == ORDER_ID_LENGTH
    assert IDS.read(order_id) == (key, tag_of(shopper))
    assert IDS.read_own(order_id, shopper) == key


@given(wanted=st.lists(st.tuples(keys, st.integers(0, 2**32 - 1)), min_size=1, max_size=8))
def test_a_batch_of_ids_is_what_each_alone_would_be(wanted):
    assert [IDS.read(order_id) for order_id in IDS.write_batch(wanted)] == wanted


def test_somebody_elses_id_is_nobodys():
    order_id = IDS.write(OrderKey(1, 0, 1, 0), "ann")

    assert IDS.read_own(order_id, "bob") is None


@given(text=st.text(alphabet=ALPHABET, min_size=ORDER_ID_LENGTH, max_size=ORDER_ID_LENGTH))
def test_an_invented_id_is_refused(text):
    assert IDS.read(text) is None


@pytest.mark.parametrize("text", ["", "0", "0" * 25, "0" * 27, "Z" * 26, "u" * 26, "é" * 26])
def test_what_is_no_id_at_all_is_refused(text):
    assert IDS.read(text) is None


def test_another_deployments_id_is_refused():
    other = OrderIds(b"fedcba9876543210")

    assert IDS.read(other.write(OrderKey(1, 0, 1, 0), "ann")) is None


def test_neighbours_look_nothing_alike():
    first, second = (IDS.write(OrderKey(1, 0, 1, seq), "ann") for seq in (0, 1))

    assert sum(a == b for a, b in zip(first, second, strict=True)) < ORDER_ID_LENGTH / 2


@pytest.mark.parametrize("key", [b"", b"0" * 15, b"0" * 32])
def test_a_key_of_another_length_is_refused(key):
    with pytest.raises(BadConfiguration, match="ID_KEY"):
        OrderIds(key)
