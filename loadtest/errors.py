"""
Every exception of the load lab.

LoadError
├── NoAnswer        a request left and nothing came back: it may have been done
├── Unreachable     nobody listens; nothing was sent
├── Unreadable      the answer is not of the kind this client reads
├── Refused         the service refused what a run cannot do without
├── GeneratorFailed Locust ended without a history
├── GaveUp          an order was not settled in time
├── NoGateway       a scenario pays, and nobody said where
├── NotAHistory     the file was not written by a run
└── NoSigningKey    shopper tokens cannot be made
"""

from enum import StrEnum
from pathlib import Path


class LoadError(Exception):
    """Something stopped a run, or one request of it."""


class NoAnswer(LoadError):
    """
    The request left and no answer came back: it may or may not have been done.

    Attributes:
        sent_at: monotonic seconds.
    """

    def __init__(self, reason: str, sent_at: float) -> None:
        super().__init__(reason)
        self.sent_at = sent_at


class Unreachable(LoadError):
    """Nobody listens there; nothing was sent."""

    def __init__(self, url: str, reason: Exception) -> None:
        super().__init__(f"{url}: {reason or type(reason).__name__}")


class Fault(StrEnum):
    """Why an answer cannot be read."""

    HEAD_TOO_LONG = "the head is too long"
    NOT_HTTP = "not an HTTP/1.1 answer"
    CHUNKED = "the body comes in chunks"
    NO_LENGTH = "the body has not exactly one length"
    BODY_TOO_LONG = "the body is too long"
    BYTES_AFTER = "more bytes than were announced"


class Unreadable(LoadError):
    """The answer is not of the kind this client reads."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Refused(LoadError):
    """The service refused what a run cannot do without."""

    def __init__(self, request: str, status: int, body: bytes) -> None:
        super().__init__(f"{request}: {status} {body[:300].decode(errors='replace')}")
        self.status = status


class GeneratorFailed(LoadError):
    """Locust ended without a history."""

    def __init__(self, log: Path, reason: str) -> None:
        super().__init__(f"{reason}; see {log}")


class GaveUp(LoadError):
    """An order was not settled in time; its shopper looks no longer."""


class NoGateway(LoadError):
    """The scenario pays at the sandbox gateway, and nobody said where that is."""

    def __init__(self) -> None:
        super().__init__("this scenario pays at the sandbox gateway; name it with --sandbox-url")


class NotAHistory(LoadError):
    """The file was not written by a run."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))


class NoSigningKey(LoadError):
    """None of the keys is an HS256 key that may sign."""
