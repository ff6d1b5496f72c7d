"""
The one door to providers over HTTP: what is sent, what came back, and what is unknown.

`ProviderCalls` holds the sessions of one process. A request to an address of the
settings goes through `send`; an address that a provider told us (a bill to
download) goes through `fetch`, which allows only the hosts it is given, only over
TLS, and only public addresses, unless that very origin is one of the settings. No
redirect is followed, no proxy of the environment is used, no answer is longer
than its limit.

What did not become an answer is `Lost`: NOT_SENT when no connection came about,
UNKNOWN for everything after it. A status is an answer; what a 5xx means is for
the provider's own reading (`outcome_of_status`).

Source:
    docs/PAYMENTS.md §4.6, and row 19 of the table in §6.
"""

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.payments.provider import Outcome

USER_AGENT: Final = "doorbuster"
ANSWER_BYTES_MAX: Final = 262_144
DOWNLOAD_BYTES_MAX: Final = 268_435_456  # a day's bill of some hundred thousand payments

_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,  # refused, no such host, TLS not agreed on
    aiohttp.ConnectionTimeoutError,
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # any IPv4 address may stand behind it
_NAME: Final = re.compile(r"[0-9a-z-]{1,63}(\.[0-9a-z-]{1,63})*", re.ASCII)
_ASCII_HOST: Final = re.compile(r"[0-9A-Za-z.:-]{1,253}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How long and how much one process waits and reads."""

    connect_ms: int = 1_000  # after that it is surely not sent
    answer_ms: int = 4_000  # of one whole call; after that it is unknown
    download_ms: int = 120_000  # of one whole download
    answer_bytes_max: int = ANSWER_BYTES_MAX
    download_bytes_max: int = DOWNLOAD_BYTES_MAX
    connections_max: int = 64  # to one host: one that hangs takes none of another's

    def __post_init__(self) -> None:
        assert 0 < self.connect_ms <= self.answer_ms <= self.download_ms
        assert 0 < self.answer_bytes_max <= self.download_bytes_max
        assert self.connections_max >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, exactly as it is put on the wire: the URL is not encoded again."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    answer_ms: int | None = None  # None: the limits' own

    @property
    def origin(self) -> str:
        return origin_of(self.url)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back whole; `headers` are looked up without regard to case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer: whether the request surely never left, and one word for logs."""

    outcome: Outcome
    code: str

    def __post_init__(self) -> None:
        assert self.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN)


Heard: TypeAlias = Answer | Lost


class ProviderCalls:
    """Every request of one process to providers; use it as an async context."""

    def __init__(self, limits: CallLimits | None = None) -> None:
        self._limits = limits or CallLimits()
        self._known: aiohttp.ClientSession | None = None
        self._told: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        per_host = self._limits.connections_max
        self._known = _session(aiohttp.TCPConnector(limit=0, limit_per_host=per_host))
        self._told = _session(
            aiohttp.TCPConnector(limit=0, limit_per_host=per_host, resolver=_PublicResolver())
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sessions = (self._known, self._told)
        self._known = self._told = None
        for session in sessions:
            if session is not None:
                await session.close()

    async def send(self, call: Call) -> Heard:
        """Send a request to an address of the settings and read its answer; never raises."""
        limits = self._limits
        return await self._exchange(
            self._known, call, call.answer_ms or limits.answer_ms, limits.answer_bytes_max
        )

    async def fetch(
        self, call: Call, *, hosts: Collection[str], own_origins: Collection[str] = ()
    ) -> Heard:
        """
        Download from an address that a provider told us; never raises.

        Args:
            call: a GET; what it signs must fit the host, so check `hosts` first.
            hosts: names that may be asked, each itself or, with a leading dot,
                everything below it.
            own_origins: scheme, host and port of addresses in our settings: these
                may be private and without TLS, for there an operator chose them.
        """
        limits = self._limits
        trusted = call.origin in {origin_of(one) for one in own_origins}
        if not trusted and not may_be_fetched(call.url, hosts):
            return Lost(Outcome.NOT_SENT, "host_not_allowed")
        session = self._known if trusted else self._told
        return await self._exchange(
            session, call, call.answer_ms or limits.download_ms, limits.download_bytes_max
        )

    async def _exchange(
        self, session: aiohttp.ClientSession | None, call: Call, wait_ms: int, bytes_max: int
    ) -> Heard:
        assert session is not None, "use ProviderCalls as an async context"
        try:
            url = URL(call.url, encoded=True)
        except ValueError:
            return Lost(Outcome.NOT_SENT, "InvalidURL")
        timeout = aiohttp.ClientTimeout(
            total=wait_ms / 1000,
            connect=None,
            sock_connect=min(wait_ms, self._limits.connect_ms) / 1000,
        )
        try:
            async with session.request(
                call.method,
                url,
                data=call.body or None,
                headers={"User-Agent": USER_AGENT, **call.headers},
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                body = await _read_bounded(response, bytes_max)
        except _NOT_SENT as error:
            return Lost(Outcome.NOT_SENT, type(error).__name__)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            return Lost(Outcome.NOT_SENT, type(error).__name__)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Lost(Outcome.UNKNOWN, type(error).__name__)
        if body is None:
            return Lost(Outcome.UNKNOWN, "answer_too_long")
        return Answer(response.status, response.headers, body)


def outcome_of_status(status: int) -> Outcome | None:
    """
    Say what a status means before anything in the answer is believed.

    Returns:
        UNKNOWN for redirects, 408, 429 and everything from 500 on: none of them
        says what became of the request. None: read the answer.
    """
    unclear = 300 <= status < 400 or status in (408, 429) or status >= 500
    return Outcome.UNKNOWN if unclear else None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, in lower case; the default port is left out."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    default = {"https": 443, "http": 80}.get(parts.scheme)
    shown = "" if port is None or port == default else f":{port}"
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{shown}"


def url_mistake(url: str) -> str | None:
    """
    Say what is wrong with the address of a gateway in the settings; None: nothing.

    Without TLS only addresses that cannot be outside are allowed: loopback,
    private networks, and names without a dot.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "it is not a URL"
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _ASCII_HOST.fullmatch(host):
        return "it is not https://host"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "it may hold no name, password, query or fragment"
    if parts.scheme == "http" and not _is_inside(host):
        return "a gateway outside is asked over https alone"
    return None


def may_be_fetched(url: str, hosts: Collection[str]) -> bool:
    """Whether an address that a provider told us may be asked, before its name is resolved."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = (parts.hostname or "").lower()
    if parts.scheme != "https" or parts.username or parts.password or port not in (None, 443):
        return False
    if _NAME.fullmatch(host) is None or _address(host) is not None:  # a name, never a number
        return False
    return any(host == one or (one.startswith(".") and host.endswith(one)) for one in hosts)


class _PublicResolver(AbstractResolver):
    """Resolve names to public addresses alone: what is connected to is what was checked."""

    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [one for one in found if is_public(one["host"])]
        if not public:
            message = f"{host} has no public address"
            raise OSError(message)
        return public

    async def close(self) -> None:
        await self._inner.close()


def is_public(text: str) -> bool:
    """Whether an IP address is one of the open internet, whatever notation hides it."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None or address in _NAT64:
            return False
        address = inner or address
    return address is not None and address.is_global and not address.is_multicast


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_inside(host: str) -> bool:
    address = _address(host)
    if address is None:
        return "." not in host or host.endswith((".localhost", ".internal", ".local"))
    return address.is_private or address.is_loopback


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # A signed request goes to the gateway or nowhere, never by way of a proxy
        # that the environment names.
        trust_env=False,
        # Bodies are signed, hashed and limited as they are: nothing is unpacked on the way.
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    )


async def _read_bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """Read a body, or give up as soon as it is too long; None then."""
    if (response.content_length or 0) > bytes_max:
        response.close()
        return None
    kept = bytearray()
    async for chunk in response.content.iter_any():
        kept += chunk
        if len(kept) > bytes_max:
            response.close()
            return None
    return bytes(kept)
