"""How answers are pushed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """What one api process spends on open streams."""

    streams_max: int = 2_000  # about 12 KB each; beyond it 503, and clients poll
    look_ms: int = 250  # between two looks at a shard, however many wait
    ping_seconds: float = 15.0  # below the minute after which proxies cut a silent line
    write_seconds_max: float = 10.0  # for a client that does not read
    stream_seconds_max: float = 1_800.0  # then the client comes back, and its token is read again

    def __post_init__(self) -> None:
        assert self.streams_max >= 1
        assert self.look_ms >= 10
        assert 0 < self.ping_seconds <= self.stream_seconds_max
        assert self.write_seconds_max > 0
