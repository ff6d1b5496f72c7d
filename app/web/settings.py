"""Where a listener listens, and what it lets one connection cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Addresses, deadlines and limits of the listeners."""

    host: str = "127.0.0.1"  # only this machine unless somebody decides otherwise
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    header_seconds: float = 8.0  # from the first byte to a whole header; then the line is cut
    body_seconds: float = 8.0  # from the whole header to a whole body; then 408
    keepalive_seconds: float = 75.0  # longer than the usual proxy's 60, so the proxy closes first
    linger_seconds: float = 2.0  # a refused body is read and dropped this long
    drain_seconds: float = 10.0  # requests in flight get this long to finish
    header_bytes_max: int = 8_190  # one header or the request line; a token is at most 2 048
    headers_max: int = 64
    body_bytes_max: int = 4_096  # an order is about 100 bytes
    connections_max: int = 20_000  # per process; also kept below the limit of open files
    connections_per_address_max: int = 10_000  # a load generator is one address, and legitimate

    def __post_init__(self) -> None:
        assert 0 <= self.port <= 65_535
        assert 0 <= self.admin_port <= 65_535
        assert self.header_seconds > 0
        assert self.body_seconds > 0
        assert self.keepalive_seconds > 0
        assert self.drain_seconds > 0
        assert self.connections_max >= 1
        assert self.connections_per_address_max >= 1
