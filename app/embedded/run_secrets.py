"""`<data-dir>/secrets.json`: the secrets of one deployment, made once and kept."""

import base64
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.embedded.private_files import read_private, write_private

SECRETS_NAME: Final = "secrets.json"
AUTH_KEY_BYTES: Final = 32  # HS256 wants at least as many as its hash has (RFC 7518 §3.2)
ORDER_ID_KEY_BYTES: Final = 16  # one AES-128 key
DELIVERY_KEY_BYTES: Final = 32  # what the keys of cipher and search are derived from


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthKey:
    """A key for shoppers' tokens, as `DOORBUSTER_AUTH__KEYS` lists it; `key` is base64url."""

    kid: str
    alg: str
    key: str
    use: str


def _new_auth_key() -> AuthKey:
    key = base64.urlsafe_b64encode(secrets.token_bytes(AUTH_KEY_BYTES)).rstrip(b"=").decode()
    return AuthKey(kid=secrets.token_hex(4), alg="HS256", key=key, use="sign")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryKey:
    """A key of personal fields, as `DOORBUSTER_FULFILMENT__DELIVERY_KEYS` lists it."""

    kid: str
    key: str
    use: str


def _new_delivery_key() -> DeliveryKey:
    key = base64.urlsafe_b64encode(secrets.token_bytes(DELIVERY_KEY_BYTES)).rstrip(b"=").decode()
    return DeliveryKey(kid=secrets.token_hex(4), key=key, use="seal")


def _new_order_id_key() -> str:
    return secrets.token_hex(ORDER_ID_KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSecrets:
    """
    What must not change between two runs on one data directory.

    Attributes:
        auth_key: signs and checks shoppers' tokens.
        admin_token: bearer of the scope `operator` on the admin listener.
        order_id_key: hex; orders already given out are read with it, so it lives as long as they.
        sandbox_key: shared with the sandbox gateway, signs its callbacks.
        delivery_key: opens the personal fields of orders, so it lives as long as they.
    """

    auth_key: AuthKey = field(default_factory=_new_auth_key)
    admin_token: str = field(default_factory=secrets.token_urlsafe)
    order_id_key: str = field(default_factory=_new_order_id_key)
    sandbox_key: str = field(default_factory=secrets.token_urlsafe)
    delivery_key: DeliveryKey = field(default_factory=_new_delivery_key)


def keep_secrets(data_dir: Path) -> RunSecrets:
    """Read the secrets of a data directory, making them at the first run; mode 0600."""
    path = data_dir / SECRETS_NAME
    kept = read_private(path, RunSecrets)
    if kept is None:
        kept = RunSecrets()
    # A directory of an older version lacks what was made just now: keep that too.
    write_private(path, kept)
    return kept
