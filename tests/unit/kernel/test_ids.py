from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import assume, given
from hypothesis import strategies as st

from app.kernel.ids import (
    BUCKET_MAX,
    EPOCH_MAX,
    ORDER_ID_LENGTH,
    SALE_MAX,
    SEQ_MAX,
    OrderKey,
    pack_order_key,
    read_order_id,
    shopper_tag,
    write_order_ids,
)

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
AES = Cipher(algorithms.AES(b"sixteen byte key"), modes.ECB())  # noqa: S305  one block is one id

keys = st.builds(
    OrderKey,
    sale=st.integers(1, SALE_MAX),
    bucket=st.integers(0, BUCKET_MAX),
    epoch=st.integers(0, EPOCH_MAX),
    seq=st.integers(0, SEQ_MAX),
)
tags = st.integers(0, 2**32 - 1)


def encrypt(blocks: bytes) -> bytes:
    return AES.encryptor().update(blocks)


def decrypt(blocks: bytes) -> bytes:
    return AES.decryptor().update(blocks)


@given(key=keys, tag=tags)
def test_an_id_reads_back_as_the_key_and_tag_it_was_written_from(key, tag):
    (order_id,) = write_order_ids([pack_order_key(key, tag)], encrypt)

    assert len(order_id) == ORDER_ID_LENGTH
    assert set(order_id) <= set(CROCKFORD)
    assert read_order_id(order_id, decrypt) == (key, tag)


@given(batch=st.lists(st.tuples(keys, tags), max_size=20))
def test_a_batch_is_written_as_its_orders_are_one_by_one(batch):
    blocks = [pack_order_key(key, tag) for key, tag in batch]

    assert write_order_ids(blocks, encrypt) == [
        order_id for block in blocks for order_id in write_order_ids([block], encrypt)
    ]


@pytest.mark.parametrize(
    "key",
    [
        OrderKey(1, 0, 0, 0),
        OrderKey(SALE_MAX, BUCKET_MAX, EPOCH_MAX, SEQ_MAX),
        OrderKey(1, BUCKET_MAX, 0, SEQ_MAX),
        OrderKey(SALE_MAX, 0, EPOCH_MAX, 0),
    ],
)
def test_the_corners_of_every_field_fit(key):
    (order_id,) = write_order_ids([pack_order_key(key, 2**32 - 1)], encrypt)

    assert read_order_id(order_id, decrypt) == (key, 2**32 - 1)


@pytest.mark.parametrize(
    "key",
    [
        OrderKey(0, 0, 0, 0),
        OrderKey(SALE_MAX + 1, 0, 0, 0),
        OrderKey(1, BUCKET_MAX + 1, 0, 0),
        OrderKey(1, 0, EPOCH_MAX + 1, 0),
        OrderKey(1, 0, 0, SEQ_MAX + 1),
        OrderKey(1, 0, 0, -1),
    ],
)
def test_a_key_that_would_spill_into_the_next_field_is_a_bug(key):
    with pytest.raises(AssertionError):
        pack_order_key(key, 0)


@given(
    key=keys, tag=tags, place=st.integers(0, ORDER_ID_LENGTH - 1), letter=st.sampled_from(CROCKFORD)
)
def test_an_id_with_one_letter_changed_never_reads_as_its_neighbour(key, tag, place, letter):
    (order_id,) = write_order_ids([pack_order_key(key, tag)], encrypt)
    assume(order_id[place] != letter)
    forged = order_id[:place] + letter + order_id[place + 1 :]

    # Twenty check bits let one forgery in a million through, to an unrelated key.
    assert read_order_id(forged, decrypt) != (key, tag)


def test_invented_ids_are_refused():
    invented = [encrypt(number.to_bytes(16, "big")) for number in range(2_000)]
    read = [read_order_id(text, decrypt) for text in write_order_ids(invented, encrypt)]

    assert read == [None] * len(invented)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 25,
        "0" * 27,
        "I" * 26,
        "U" * 26,
        "é" * 26,
        "0" * 25 + "a",
        "8" + "0" * 25,  # bit 128 is set: more than one block holds
        "Z" * 26,
    ],
)
def test_text_that_is_no_id_is_none(text):
    assert read_order_id(text, decrypt) is None


def test_a_block_with_the_right_check_and_sale_zero_is_none():
    check_alone = 0xD00B5.to_bytes(16, "big")
    (order_id,) = write_order_ids([check_alone], encrypt)

    assert read_order_id(order_id, decrypt) is None


def test_neighbouring_orders_have_ids_without_a_visible_order():
    blocks = [pack_order_key(OrderKey(7, 0, 0, seq), shopper_tag("ann")) for seq in range(64)]
    ids = write_order_ids(blocks, encrypt)

    assert len(set(ids)) == len(ids)
    assert any(earlier > later for earlier, later in pairwise(ids))


def test_a_shoppers_tag_is_the_crc_every_release_agrees_on():
    assert shopper_tag("123456789") == 0xCBF43926  # the check value of CRC-32
