"""What follows from a lease row, a sale row and a server's name."""

import pytest

from app.inventory.lease import LAPSE_MS, LEASE_MS, ServerIdentity
from app.inventory.server import faults_of, version_of

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def test_an_incarnation_is_of_one_run_of_one_server():
    names = [("a" * 40, "b" * 40), ("a" * 40, "c" * 40), ("c" * 40, "b" * 40)]
    made = [ServerIdentity(*name).incarnation for name in names]

    assert len(set(made)) == 3
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in made)


def test_who_waits_for_a_lease_to_lapse_waits_longer_than_a_seller_believes_one():
    """The scripts believe a deadline at most 5 s ahead."""
    assert LEASE_MS <= 5_000 < LAPSE_MS


@pytest.mark.parametrize(
    ("changes", "version", "words"),
    [
        ({}, (7, 2), []),
        ({}, (9, 1), []),
        ({}, (7, 1), ["older than 7.2"]),
        ({"appendonly": "no"}, (9, 1), ["appendonly is no"]),
        ({"appendfsync": "everysec"}, (9, 1), ["appendfsync is everysec"]),
        ({"maxmemory-policy": "allkeys-lru"}, (9, 1), ["maxmemory-policy is allkeys-lru"]),
        ({"appendonly": "no", "appendfsync": "no"}, (6, 0), ["appendonly", "appendfsync", "6.0"]),
    ],
)
def test_a_server_that_may_lose_what_it_acknowledged_is_refused(changes, version, words):
    faults = faults_of(DURABLE | changes, version)

    assert len(faults) == len(words)
    assert all(word in fault for word, fault in zip(words, faults, strict=True))


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ({"redis_version": "7.2.4"}, (7, 2)),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, (9, 1)),
    ],
)
def test_valkeys_own_version_counts_more_than_the_one_it_poses_as(told, version):
    assert version_of(told) == version
