"""Shopper tokens; PyJWT is the oracle: what we accept it accepts, what it refuses we refuse."""

import base64
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from app.admission.settings import Algorithm, KeyUse, TokenKey
from app.admission.tokens import ShopperTokens
from app.kernel.errors import BadConfiguration

NOW = float(int(time.time()))
SECRET = bytes(range(32))
SEED = bytes(range(32, 64))
HS = TokenKey(kid="hs", alg=Algorithm.HS256, key=SECRET, use=KeyUse.SIGN)
ED = TokenKey(kid="ed", alg=Algorithm.EDDSA, key=SEED, use=KeyUse.SIGN)
ED_PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
BOTH = ShopperTokens([HS, ED])
# Good for hours: the oracle has its own clock, and the suite before us takes minutes.
GOOD = {"sub": "ann", "aud": "doorbuster", "exp": int(NOW) + 36_000}


def bearer(token: str) -> str:
    return f"Bearer {token}"


def made(claims=GOOD, *, key=SECRET, algorithm="HS256", headers=None) -> str:
    return bearer(jwt.encode(claims, key, algorithm, headers={"kid": "hs"} | (headers or {})))


def forged(header: dict, claims: dict, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return bearer(".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts))


def signed(header: dict, claims: dict) -> str:
    """Sign whatever header with the right secret, as no library would."""
    text = forged(header, claims)[7:].rpartition(".")[0]
    signature = hmac.digest(SECRET, text.encode(), "sha256")
    return bearer(text + "." + base64.urlsafe_b64encode(signature).decode().rstrip("="))


def oracle(authorization: str) -> str | None:
    token = authorization[7:]
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        key, algorithm = {"hs": (SECRET, "HS256"), "ed": (ED_PUBLIC, "EdDSA")}[kid]
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience="doorbuster",
            leeway=5,
            options={"require": ["exp", "aud", "sub"]},
        )
    except (jwt.PyJWTError, KeyError):
        return None
    return claims["sub"]


@pytest.mark.parametrize("key", [HS, ED])
def test_a_minted_token_is_accepted_by_us_and_by_the_oracle(key):
    token = bearer(ShopperTokens([key]).mint("ann", 3_600, NOW))  # the oracle has its own clock
    assert BOTH.verify(token, NOW) == "ann"
    assert oracle(token) == "ann"


@pytest.mark.parametrize("key", [HS, ED])
def test_a_remembered_token_expires_like_any_other(key):
    tokens = ShopperTokens([key])
    token = bearer(tokens.mint("ann", 60, NOW))
    assert tokens.verify(token, NOW) == "ann"
    assert tokens.verify(token, NOW + 64.9) == "ann"
    assert tokens.verify(token, NOW + 65) is None
    assert tokens.verify(token, NOW - 6) is None


def test_a_key_that_only_verifies_cannot_sign():
    public = ED_PUBLIC.public_bytes_raw()
    verifying = TokenKey(kid="ed", alg=Algorithm.EDDSA, key=public, use=KeyUse.VERIFY)
    tokens = ShopperTokens([verifying])
    assert tokens.verify(bearer(ShopperTokens([ED]).mint("ann", 60, NOW)), NOW) == "ann"
    with pytest.raises(BadConfiguration):
        tokens.mint("ann", 60, NOW)


def test_two_live_keys_are_told_apart_by_kid_and_one_needs_none():
    unnamed = bearer(jwt.encode(GOOD, SECRET, "HS256"))
    assert ShopperTokens([HS]).verify(unnamed, NOW) == "ann"
    assert BOTH.verify(unnamed, NOW) is None


def test_a_token_of_a_retired_key_is_refused():
    assert ShopperTokens([ED]).verify(made(), NOW) is None


def test_the_issuer_is_checked_when_one_is_configured():
    tokens = ShopperTokens([HS], issuer="shop")
    assert tokens.verify(made(GOOD | {"iss": "shop"}), NOW) == "ann"
    assert tokens.verify(made(GOOD | {"iss": "else"}), NOW) is None
    assert tokens.verify(made(), NOW) is None


ACCEPTED = [
    GOOD,
    GOOD | {"aud": ["x", "doorbuster"]},
    GOOD | {"nbf": int(NOW) + 4, "iat": int(NOW)},
    GOOD | {"exp": NOW + 36_000.5},
    GOOD | {"sub": "a" * 64, "jti": "1", "role": {"x": [1]}},
]


@pytest.mark.parametrize("claims", ACCEPTED)
def test_valid_claims_are_accepted(claims):
    assert BOTH.verify(made(claims), NOW) == claims["sub"]
    assert oracle(made(claims)) == claims["sub"]


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


REFUSED = [
    without("sub"),
    without("exp"),
    without("aud"),
    GOOD | {"exp": int(NOW) - 6},
    GOOD | {"exp": str(int(NOW) + 600)},
    GOOD | {"exp": None},
    GOOD | {"exp": True},
    GOOD | {"exp": 10**400},
    GOOD | {"exp": -1},
    GOOD | {"nbf": int(NOW) + 60},
    GOOD | {"iat": int(NOW) + 60},
    GOOD | {"iat": "x"},
    GOOD | {"aud": "doorbusters"},
    GOOD | {"aud": ["x"]},
    GOOD | {"aud": []},
    GOOD | {"aud": {"doorbuster": 1}},
    GOOD | {"sub": ""},
    GOOD | {"sub": "a" * 65},
    GOOD | {"sub": "a b"},
    GOOD | {"sub": "ann\n"},
    GOOD | {"sub": "安"},
    GOOD | {"sub": 7},
]


@pytest.mark.parametrize("claims", REFUSED)
def test_claims_that_are_missing_wrong_or_of_the_wrong_type_are_refused(claims):
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, "HS256", {"kid": "hs"})
    assert BOTH.verify(bearer(token), NOW) is None


FORGERIES = {
    "alg none": forged({"alg": "none", "kid": "hs"}, GOOD),
    "alg None": forged({"alg": "None", "kid": "hs"}, GOOD, b"x"),
    "no alg": forged({"kid": "hs"}, GOOD, b"x"),
    "unknown kid": made(headers={"kid": "other"}),
    "kid of another type": forged({"alg": "HS256", "kid": 1}, GOOD, b"x"),
    "kid of the other algorithm": made(headers={"kid": "ed"}),
    "alg RS256": forged({"alg": "RS256", "kid": "hs"}, GOOD, b"x" * 256),
    "HS512": made(algorithm="HS512", key=SECRET * 2),
    "crit": signed({"alg": "HS256", "kid": "hs", "crit": ["exp"]}, GOOD),
    "b64": signed({"alg": "HS256", "kid": "hs", "b64": True}, GOOD),
    "another type": made(headers={"typ": "at+jwt"}),
    "another secret": made(key=bytes(32)),
    "oversized": made(GOOD | {"x": "y" * 3000}),
    "empty signature": made().rpartition(".")[0] + ".",
    "no signature": made().rpartition(".")[0],
    "four parts": made() + ".x",
    "padded": made() + "=",
    "a newline": made() + "\n",
    "two spaces": made().replace(" ", "  "),
    "another scheme": made().replace("Bearer", "Basic"),
    "nothing": "",
    "scheme alone": "Bearer ",
    "dots": "Bearer ..",
    "beyond ASCII": made() + "é",
    "lone surrogate": made() + "\udc80",
    "deep header": bearer(base64.urlsafe_b64encode(b"[" * 900).decode() + ".e30.x"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_or_malformed_token_is_refused(name):
    assert BOTH.verify(FORGERIES[name], NOW) is None


def test_a_public_key_used_as_hmac_secret_opens_nothing():
    public = ED_PUBLIC.public_bytes_raw()
    confused = made(key=public, headers={"kid": "ed"})
    assert BOTH.verify(confused, NOW) is None


def test_the_scheme_may_be_written_in_any_case():
    assert BOTH.verify(made().replace("Bearer", "bEARER"), NOW) == "ann"


def test_the_memory_of_verified_tokens_is_bounded():
    tokens = ShopperTokens([HS], verified_tokens_max=10)
    for number in range(50):
        assert tokens.verify(bearer(tokens.mint(f"s{number}", 60, NOW)), NOW) == f"s{number}"
    assert tokens.remembered <= 10


VALID = [BOTH.mint("ann", 600, NOW), ShopperTokens([ED]).mint("bob", 600, NOW)]


@given(st.sampled_from(VALID), st.integers(0, 400), st.characters(codec="ascii"))
def test_a_mutated_token_is_refused_unless_it_is_the_same(token, place, character):
    at = place % len(token)
    mutated = token[:at] + character + token[at + 1 :]
    if mutated != token:
        assert BOTH.verify(bearer(mutated), NOW) is None


instants = st.one_of(
    st.integers(int(NOW) - 20, int(NOW) + 20),
    st.floats(NOW - 20, NOW + 20),
    st.none(),
    st.text(max_size=3),
    st.booleans(),
)
claim_sets = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.one_of(st.sampled_from(["ann", "", "a b", "x:y.z-_"]), st.integers()),
        "aud": st.one_of(
            st.sampled_from(["doorbuster", "", "else"]),
            st.lists(st.sampled_from(["doorbuster", "else"])),
        ),
        "exp": instants,
        "nbf": instants,
        "iat": instants,
        "jti": st.one_of(st.text(max_size=3), st.none(), st.integers()),
        "iss": st.one_of(st.text(max_size=3), st.none()),
    },
)


@given(claim_sets, st.sampled_from(["hs", "ed", "other"]), st.sampled_from(["HS256", "EdDSA"]))
@example(GOOD, "hs", "HS256")
@example(GOOD, "ed", "EdDSA")
def test_whatever_we_accept_the_oracle_accepts(claims, kid, algorithm):
    key = SECRET if algorithm == "HS256" else Ed25519PrivateKey.from_private_bytes(SEED)
    payload = json.dumps(claims).encode()
    token = bearer(jwt.PyJWS().encode(payload, key, algorithm, {"kid": kid}))
    shopper = BOTH.verify(token, time.time())
    if shopper is not None:
        # The oracle looks at the clock a little later, when both may say no.
        assert oracle(token) == shopper or BOTH.verify(token, time.time()) is None


@given(st.text(max_size=60))
def test_noise_is_refused_and_never_raises(text):
    assert BOTH.verify(text, NOW) is None
    assert BOTH.verify(bearer(text), NOW) is None
