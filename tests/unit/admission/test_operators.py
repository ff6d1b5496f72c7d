"""Admin tokens and the settings of both kinds."""

import base64
import json

import pytest

from app.admission.operators import Operators
from app.admission.settings import (
    Algorithm,
    KeyUse,
    read_operator_tokens,
    read_token_keys,
)
from app.kernel.errors import BadConfiguration

TOKENS = json.dumps(
    [
        {"name": "ann", "scope": "viewer", "token": "v" * 20},
        {"name": "bob", "scope": "merchant:m1", "token": "m" * 20},
    ],
)


def test_the_holder_of_a_token_is_found_with_scope_and_merchant():
    operators = Operators(read_operator_tokens(TOKENS))
    ann = operators.find("Bearer " + "v" * 20)
    bob = operators.find("bearer " + "m" * 20)
    assert (ann.name, ann.scope, ann.merchant) == ("ann", "viewer", None)
    assert (bob.name, bob.merchant) == ("bob", "m1")


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer ",
        "Bearer x",
        "v" * 20,
        "Basic " + "v" * 20,
        "Bearer \udcff",
        "Bearer " + "v" * 21,
    ],
)
def test_any_other_token_is_nobody(shown):
    assert Operators(read_operator_tokens(TOKENS)).find(shown) is None


def written(**changed) -> str:
    key = base64.urlsafe_b64encode(bytes(range(200, 232))).decode()
    return json.dumps([{"kid": "a", "alg": "HS256", "key": key, "use": "sign"} | changed])


def test_keys_are_read_from_json_with_and_without_padding():
    for text in (written(), written().replace("=", "")):
        (key,) = read_token_keys(text)
        assert (key.kid, key.alg, key.use) == ("a", Algorithm.HS256, KeyUse.SIGN)
        assert key.key == bytes(range(200, 232))
    assert read_token_keys("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "truncated"),
        ("{}", "array"),
        (written(alg="RS256"), "RS256"),
        (written(use="both"), "both"),
        (written(key="AAAA"), "at least 32 bytes"),
        (written(key="!!"), "not base64url"),
        (written(key="AAAA", alg="EdDSA"), "exactly 32 bytes"),
        (written(kid=""), "1 to 64"),
        (written(extra=1), "extra"),
        (json.dumps(json.loads(written()) * 2), "two keys"),
    ],
)
def test_a_wrong_key_is_told_as_a_sentence(text, said):
    with pytest.raises(BadConfiguration, match=said):
        read_token_keys(text)


@pytest.mark.parametrize("changed", [{"scope": "root"}, {"token": "short"}, {"token": "é" * 20}])
def test_a_wrong_admin_token_is_told_without_the_token(changed):
    one = json.loads(TOKENS)[0] | changed
    with pytest.raises(BadConfiguration) as told:
        read_operator_tokens(json.dumps([one]))
    assert one["token"] not in str(told.value)


def test_secrets_do_not_show_in_representations():
    (key,) = read_token_keys(written())
    (token, _) = read_operator_tokens(TOKENS)
    assert repr(key.key) not in repr(key)
    assert token.token not in repr(token)
