"""The catalogue of Redis keys."""

import re

import pytest

from app.storage.keys import CATALOGUE, BucketKeys

KEYS = BucketKeys("shop", sale=42, bucket=3, epoch=7)


def test_a_key_is_spelt_as_its_pattern_says() -> None:
    for entry in CATALOGUE:
        spelt = entry.pattern
        for placeholder, value in (
            ("<deployment>", "shop"),
            ("<sale>", "42"),
            ("<bucket>", "3"),
            ("<epoch>", "7"),
        ):
            spelt = spelt.replace(placeholder, value)
        assert KEYS.named(entry.name) == spelt.encode()
        assert getattr(KEYS, entry.name) == spelt.encode()


def test_every_key_of_a_bucket_has_one_hash_tag() -> None:
    tags = {re.search(rb"\{(.*?)\}", key)[1] for key in (*KEYS.all, KEYS.channel)}
    assert tags == {b"42.3"}


def test_all_keys_are_listed_once_in_the_catalogues_order() -> None:
    assert len(set(KEYS.all)) == len(CATALOGUE) == 7
    assert KEYS.in_order(["orders", "state"]) == (KEYS.orders, KEYS.state)


def test_the_channel_outlives_the_epochs() -> None:
    assert KEYS.channel == BucketKeys("shop", 42, 3, 8).channel == b"shop:{42.3}:committed"


@pytest.mark.parametrize("deployment", ["", "a:b", "a{b", "a}b", "A", "-a", "a" * 33, "a b"])
def test_a_deployment_cannot_move_the_hash_tag(deployment: str) -> None:
    with pytest.raises(AssertionError):
        BucketKeys(deployment, 1, 0, 1)
