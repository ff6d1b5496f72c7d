"""
Every exception this service raises on purpose.

DoorbusterError
├── Unavailable            a store or provider did not answer; the caller may retry
│   ├── RedisUnavailable
│   │   ├── RedisRefused       it answered, and refused before writing anything
│   │   └── ScriptMissing      NOSCRIPT: the server is not the one we knew
│   ├── ShardUnavailable
│   ├── LedgerUnavailable
│   ├── ProviderUnavailable
│   ├── BucketRecovering       nobody may sell from this bucket right now
│   └── SealKeyMissing         a personal field is under a key that this process lacks
├── OutcomeUnknown         it was sent, and no answer came; repeating is safe
├── Conflict               the request contradicts what is already recorded
│   ├── IdempotencyMismatch
│   └── IllegalTransition
├── Untrusted              the message is not from who it says
│   └── BadSignature
├── UnreadableEntry        a stream entry that no version of us has written
├── BrokenState            a state that cannot be: stop this bucket, page somebody
└── BadConfiguration       the process must not start like this

"Sold out" is not here: an expected answer is a value, not an exception.
"""

from typing import ClassVar


class DoorbusterError(Exception):
    """Something went wrong on purpose."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self._message())

    def _message(self) -> str:
        sentence = (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        if not self.fields:
            return sentence
        told = ", ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{sentence} ({told})"


class Unavailable(DoorbusterError):
    """Something we depend on did not answer."""

    code = "overloaded"
    retryable = True


class RedisUnavailable(Unavailable):
    """Redis did not answer; nothing was written."""

    code = "recovering"


class RedisRefused(RedisUnavailable):
    """Redis answered and refused before writing anything."""


class ScriptMissing(RedisUnavailable):
    """The server does not know the script: it is not the one we knew."""


class ShardUnavailable(Unavailable):
    """A Postgres shard did not answer."""

    code = "shard_unavailable"


class LedgerUnavailable(Unavailable):
    """The ledger database did not answer."""

    code = "shard_unavailable"


class ProviderUnavailable(Unavailable):
    """A payment provider did not answer."""


class BucketRecovering(Unavailable):
    """Nobody may sell from this bucket until the coordinator says so."""

    code = "recovering"


class SealKeyMissing(Unavailable):
    """A personal field is sealed under a key that this process was not given."""

    code = "seal_key_missing"


class OutcomeUnknown(DoorbusterError):
    """The request was sent and no answer came: it may or may not have been done."""

    code = "outcome_unknown"
    retryable = True


class Conflict(DoorbusterError):
    """The request contradicts what is already recorded."""


class IdempotencyMismatch(Conflict):
    """The same key was used before with other content."""

    code = "idempotency_mismatch"


class IllegalTransition(Conflict):
    """The state table has no such move."""


class Untrusted(DoorbusterError):
    """The message is not from who it says."""

    code = "unauthorized"


class BadSignature(Untrusted):
    """The signature does not match the message."""


class UnreadableEntry(DoorbusterError):
    """A stream entry could not be decoded."""


class BrokenState(DoorbusterError):
    """A state that cannot be."""


class BadConfiguration(DoorbusterError):
    """The configuration does not allow a start."""
