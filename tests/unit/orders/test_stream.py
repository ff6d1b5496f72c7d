"""The codec of the order stream."""

import contextlib
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import BrokenState, UnreadableEntry
from app.orders.answers import OverLimit, PlaceCode, Placed, Refused, Replay, SoldOut, read_answer
from app.orders.stream import (
    BATCH_ORDERS_MAX,
    EntryId,
    PlacementRequest,
    StreamEntry,
    decode_entry,
    encode_batch,
)

AT: Final = EntryId(1_700_000_000_000, 2)
ORDER: Final = PlacementRequest(b"k" * 16, b"f" * 8, "ann", 2, "cart 9", "")
GOOD: Final = [1, 41, 1_700_000_000_000, [list(ORDER)]]

requests = st.builds(
    PlacementRequest,
    key_hash=st.binary(min_size=16, max_size=16),
    fingerprint=st.binary(min_size=8, max_size=8),
    shopper=st.text(min_size=1, max_size=64),
    quantity=st.integers(1, 1_000_000),
    reference=st.text(max_size=64),
    group=st.text(max_size=40),
)


def packed(value: Any) -> dict[bytes, bytes]:
    return {b"b": msgpack.packb(value, use_bin_type=False)}


@given(st.lists(requests, min_size=1, max_size=5), st.integers(0, 2**34))
def test_what_was_packed_is_read_back(orders: list[PlacementRequest], before: int) -> None:
    _, sent = msgpack.unpackb(encode_batch(orders), raw=True)
    entry = decode_entry(AT, packed([1, before, AT.ms, sent]))
    assert entry == StreamEntry(AT, before, AT.ms, tuple(orders))


def test_a_batch_knows_no_bin_type() -> None:
    batch = encode_batch([ORDER])
    assert batch.hex().startswith("92019196b0")  # a raw string of 16 bytes


@pytest.mark.parametrize("count", [0, BATCH_ORDERS_MAX + 1])
def test_a_batch_has_its_size(count: int) -> None:
    with pytest.raises(AssertionError):
        encode_batch([ORDER] * count)


@given(st.binary(max_size=200))
def test_noise_is_unreadable(noise: bytes) -> None:
    with pytest.raises(UnreadableEntry):
        decode_entry(AT, {b"b": noise})


@given(st.integers(0, 60), st.integers(0, 255))
def test_one_wrong_byte_raises_nothing_else(position: int, byte: int) -> None:
    good = bytearray(packed(GOOD)[b"b"])
    good[position % len(good)] = byte
    with contextlib.suppress(UnreadableEntry):
        decode_entry(AT, {b"b": bytes(good)})


WRONG: Final[dict[str, Any]] = {
    "another version": [2, *GOOD[1:]],
    "a version that is true": [True, *GOOD[1:]],
    "three parts": GOOD[:3],
    "five parts": [*GOOD, 1],
    "no orders": [*GOOD[:3], []],
    "too many orders": [*GOOD[:3], [list(ORDER)] * (BATCH_ORDERS_MAX + 1)],
    "orders that are a map": [*GOOD[:3], {"a": 1}],
    "a negative number": [1, -1, *GOOD[2:]],
    "a fraction": [1, 1.5, *GOOD[2:]],
    "a number past all counting": [1, 2**63, *GOOD[2:]],
    "no time": [1, 0, 0, GOOD[3]],
    "a map": {"b": 1},
    "nothing": None,
} | {
    f"field {position + 1} is {value!r}": [
        *GOOD[:3],
        [[*ORDER[:position], value, *ORDER[position + 1 :]]],
    ]
    for position, value in (
        *((0, value) for value in (b"short", 7, None)),
        *((1, value) for value in (b"short", 7, None)),
        *((2, value) for value in ("", b"\xff", 7, None)),
        *((3, value) for value in (0, -1, 1.0, True, 1_000_001, "1", None)),
        *((4, value) for value in (b"\xff", 7, None)),
        *((5, value) for value in (b"\xff", 7, None)),
    )
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_a_malformed_entry_is_unreadable(value: Any) -> None:
    with pytest.raises(UnreadableEntry):
        decode_entry(AT, packed(value))


def test_an_entry_without_its_field_is_unreadable() -> None:
    with pytest.raises(UnreadableEntry):
        decode_entry(AT, {b"c": packed(GOOD)[b"b"]})


def test_bytes_after_the_end_are_unreadable() -> None:
    with pytest.raises(UnreadableEntry):
        decode_entry(AT, {b"b": packed(GOOD)[b"b"] + b"\x01"})


def test_entry_ids_are_ordered_as_the_server_orders_them() -> None:
    texts = ["0-0", "5-1", "5-2", "5-10", "50-0"]
    ids = [EntryId.parse(text) for text in texts]
    assert ids == sorted(ids)
    assert [str(entry_id) for entry_id in ids] == texts
    assert EntryId.parse(b"5-1").next() == EntryId(5, 2)


@pytest.mark.parametrize(
    "text", ["", "-", "5", "5-", "-5", "5-x", "5-1-1", " 5-1", "+", "\u0665-1"]
)
def test_an_entry_id_of_another_form_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableEntry):
        EntryId.parse(text)


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ([0, 41], Placed(41)),
        ([1, 41, 7, 1_700], Replay(41, 7, 1_700)),
        ([-7, 1], OverLimit(1)),
        ([-8, 0], SoldOut(0)),
        ([-5, 0], Refused(PlaceCode.STALE)),
        ([-12, 0], Refused(PlaceCode.IN_ANOTHER_GROUP)),
    ],
)
def test_an_answer_is_a_value(raw: list[int], answer: object) -> None:
    assert read_answer(raw) == answer


def test_every_code_has_its_answer() -> None:
    for code in PlaceCode:
        read_answer([code.value, 1, 1, 1])


def test_an_unknown_code_is_a_bug() -> None:
    with pytest.raises(BrokenState):
        read_answer([-99, 0])
