import base64
from dataclasses import dataclass

import jwt
import pytest

from loadtest.errors import NoSigningKey
from loadtest.tokens import Signer

KEY = bytes(range(32))


@dataclass(frozen=True)
class Key:
    kid: str = "k1"
    alg: str = "HS256"
    key: str = base64.urlsafe_b64encode(KEY).rstrip(b"=").decode()
    use: str = "sign"


def test_a_token_reads_with_pyjwt():
    token = Signer.from_keys([Key(use="verify"), Key()]).sign("ann", 60)
    claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="doorbuster")
    assert claims["sub"] == "ann"
    assert jwt.get_unverified_header(token)["kid"] == "k1"


def test_keys_that_only_verify_cannot_sign():
    with pytest.raises(NoSigningKey):
        Signer.from_keys([Key(use="verify"), Key(alg="EdDSA")])
