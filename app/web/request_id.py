"""Give every request a name that its reply, its problem and its log lines share."""

import itertools
import re
import secrets
from typing import Final

from aiohttp import web

_SANE: Final = re.compile(r"[0-9A-Za-z_.:-]{1,64}", re.ASCII)

# Eight random hex digits for the process and a running number: unique, and a
# fraction of the price of a UUID.
_PROCESS: Final = secrets.token_hex(4)
_numbers: Final = itertools.count(1)


def name_request(request: web.BaseRequest) -> str:
    """Take over the client's X-Request-Id when it is sane, or make a new one."""
    return request_id_for(request.headers.get("X-Request-Id"))


def request_id_for(given: str | None) -> str:
    """Take over the id that a client gave when it is sane, or make a new one."""
    if given is not None and _SANE.fullmatch(given) is not None:
        return given
    return f"{_PROCESS}-{next(_numbers):x}"
