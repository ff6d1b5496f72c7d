import itertools
import re

from loadtest.bench.deck import Deck
from loadtest.tokens import Signer


def a_deck(**more) -> Deck:
    given = {"host": "h:1", "sale": "s", "signer": Signer("k", b"x" * 32), "run": "r", "count": 6}
    return Deck(**{**given, **more})


def identities(requests) -> list[tuple[bytes, bytes]]:
    pattern = rb"Bearer (\S+)\r\nIdempotency-Key: (\S+)\r\n"
    return [re.search(pattern, request).groups() for request in requests]


def test_every_click_has_a_shopper_and_a_key_of_its_own():
    made = identities(a_deck().requests())
    assert len({token for token, _ in made}) == len({key for _, key in made}) == 6


def test_parts_share_no_shopper_and_leave_none_out():
    deck = a_deck()
    parts = [identities(deck.part(index, 2).requests()) for index in range(2)]
    assert [key for part in parts for _, key in part] == [
        key for _, key in identities(deck.requests())
    ]


def test_a_deck_that_is_played_again_repeats_its_keys():
    twice = list(itertools.islice(a_deck(again=True).requests(), 12))
    assert [key for _, key in identities(twice[:6])] == [key for _, key in identities(twice[6:])]


def test_one_click_in_so_many_asks_for_its_row():
    made = list(a_deck(wait_every=3).requests())
    assert [b"\r\nPrefer: wait=5\r\n" in request for request in made] == [True, False, False] * 2


def test_the_declared_length_is_that_of_the_body():
    head, _, body = next(a_deck().requests()).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
