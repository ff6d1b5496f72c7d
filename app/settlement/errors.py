"""
What the ledger refuses.

DoorbusterError
├── Conflict
│   └── TransferRefused   a rule of the books is broken; `rule` names it
└── UnreadableFact        an outbox row that no posting rule can read

A transfer that is there with other content is the kernel's IdempotencyMismatch.
"""

from app.kernel.errors import Conflict, DoorbusterError


class TransferRefused(Conflict):
    """The books do not take this transfer."""


class UnreadableFact(DoorbusterError):
    """An outbox row that no posting rule can read."""
