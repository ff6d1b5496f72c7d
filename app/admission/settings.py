"""The keys that shopper tokens are signed with, and the tokens of the admin listener."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from app.kernel.errors import BadConfiguration

SECRET_BYTES_MIN: Final = 32  # RFC 7518, 3.2: not shorter than the hash
ED25519_BYTES: Final = 32

_SCOPE: Final = re.compile(r"viewer|operator|merchant:[0-9A-Za-z_.-]{1,64}", re.ASCII)


class Algorithm(StrEnum):
    """The only two that are ever accepted."""

    HS256 = "HS256"
    EDDSA = "EdDSA"


class KeyUse(StrEnum):
    """Whether we hold what signs, or only what verifies."""

    SIGN = "sign"  # HS256: the secret; EdDSA: the private seed; it verifies too
    VERIFY = "verify"  # HS256: the secret; EdDSA: the public key


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """
    One key of shopper tokens.

    Args:
        kid: its name in token headers.
        alg: the one algorithm it is used with, whatever a token claims.
        key: raw bytes.
        use: sign or verify.
    """

    kid: str
    alg: Algorithm
    key: bytes = field(repr=False)
    use: KeyUse


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may call: shopper token keys and admin tokens, both as JSON lists."""

    keys: str = field(default="", repr=False)  # [{kid, alg, key, use}], key in base64url
    operators: str = field(default="", repr=False)  # [{name, scope, token}]
    issuer: str = ""  # empty: any; else `iss` must equal it
    leeway_seconds: int = 5  # between our clock and the issuer's
    token_bytes_max: int = 2_048  # a token with long claims is about 400
    verified_tokens_max: int = 50_000  # remembered per process, about 20 MB when full

    def __post_init__(self) -> None:
        assert 0 <= self.leeway_seconds <= 60
        assert self.token_bytes_max >= 256
        assert self.verified_tokens_max >= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorToken:
    """
    One token of the admin listener.

    Args:
        name: how the audit row calls its holder.
        scope: `viewer`, `operator` or `merchant:<id>`.
        token: at least 16 characters.
    """

    name: str
    scope: str
    token: str = field(repr=False)


class _WrittenKey(msgspec.Struct, forbid_unknown_fields=True):
    kid: str
    alg: Algorithm
    key: str
    use: KeyUse


class _WrittenToken(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    scope: str
    token: str


def read_token_keys(text: str) -> tuple[TokenKey, ...]:
    """
    Read `DOORBUSTER_AUTH__KEYS`; empty text is no keys.

    Raises:
        BadConfiguration: a sentence that names the key at fault, never its bytes.
    """
    written = _read_list(text, list[_WrittenKey], "DOORBUSTER_AUTH__KEYS")
    keys = tuple(_token_key(one) for one in written)
    if len({key.kid for key in keys}) < len(keys):
        raise BadConfiguration(setting="DOORBUSTER_AUTH__KEYS", problem="two keys have one kid")
    return keys


def read_operator_tokens(text: str) -> tuple[OperatorToken, ...]:
    """
    Read `DOORBUSTER_AUTH__OPERATORS`; empty text is no tokens.

    Raises:
        BadConfiguration: a sentence that names the holder at fault, never the token.
    """
    written = _read_list(text, list[_WrittenToken], "DOORBUSTER_AUTH__OPERATORS")
    return tuple(_operator_token(one) for one in written)


def _read_list(text: str, type_: Any, setting: str) -> list[Any]:  # noqa: ANN401  msgspec takes any type
    if not text.strip():
        return []
    try:
        listed: list[Any] = msgspec.json.decode(text, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        # msgspec names the place and the type, not the value: no secret leaks.
        raise BadConfiguration(setting=setting, problem=str(exc)) from exc
    return listed


def _token_key(written: _WrittenKey) -> TokenKey:
    try:
        raw = base64.b64decode(
            written.key.rstrip("=") + "=" * (-len(written.key.rstrip("=")) % 4),
            altchars="-_",
            validate=True,
        )
    except (binascii.Error, ValueError) as exc:
        raise _bad_key(written.kid, "key is not base64url") from exc
    if not 1 <= len(written.kid) <= 64:
        raise _bad_key(written.kid, "kid must have 1 to 64 characters")
    if written.alg is Algorithm.HS256 and len(raw) < SECRET_BYTES_MIN:
        raise _bad_key(written.kid, f"an HS256 key needs at least {SECRET_BYTES_MIN} bytes")
    if written.alg is Algorithm.EDDSA and len(raw) != ED25519_BYTES:
        raise _bad_key(written.kid, f"an EdDSA key has exactly {ED25519_BYTES} bytes")
    return TokenKey(kid=written.kid, alg=written.alg, key=raw, use=written.use)


def _bad_key(kid: str, problem: str) -> BadConfiguration:
    return BadConfiguration(setting="DOORBUSTER_AUTH__KEYS", kid=kid, problem=problem)


def _operator_token(written: _WrittenToken) -> OperatorToken:
    if _SCOPE.fullmatch(written.scope) is None:
        problem = "scope must be viewer, operator or merchant:<id>"
    elif not 16 <= len(written.token) <= 256 or not written.token.isascii():
        problem = "token must have 16 to 256 ASCII characters"
    else:
        return OperatorToken(name=written.name, scope=written.scope, token=written.token)
    raise BadConfiguration(
        setting="DOORBUSTER_AUTH__OPERATORS",
        name=written.name,
        problem=problem,
    )
