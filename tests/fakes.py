"""The only fake: a clock. Everything else in the tests is the real thing."""


class FixedClock:
    """Shows the same moment until it is told to advance."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        assert by_ms >= 0, "time goes forward"
        self._now_ms += by_ms
