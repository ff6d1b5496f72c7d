"""Tell who holds an admin token."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from app.admission.settings import OperatorToken
from app.web.access import Operator

_SCHEME: Final = "bearer "


class Operators:
    """
    The holders of admin tokens.

    Tokens are kept as SHA-256 digests: a memory dump or a log holds none, and
    how long a look-up takes tells nothing about how near a guess came.
    """

    def __init__(self, tokens: Sequence[OperatorToken]) -> None:
        self._holders = {
            _digest(one.token): Operator(name=one.name, scope=one.scope) for one in tokens
        }

    def find(self, authorization: str) -> Operator | None:
        """Return the holder of the token in an Authorization header, or None."""
        if authorization[:7].lower() != _SCHEME:
            return None
        shown = _digest(authorization[7:])
        found: Operator | None = None
        # Every digest is compared, whichever matches: a handful of them.
        for digest, holder in self._holders.items():
            if hmac.compare_digest(digest, shown):
                found = holder
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
