"""What a capture asks of the messages that are on record for its attempt."""

from typing import Final

from app.payments.intent import AttemptNumber
from app.storage.shards import Connection

SELECT_TOLD: Final = """
SELECT EXISTS (SELECT FROM provider_events WHERE attempt_number = $1 AND outcome = $2)"""


async def was_told(connection: Connection, number: AttemptNumber, outcome: str) -> bool:
    """Whether a message about this attempt is on record with this outcome."""
    return bool(await connection.fetchval(SELECT_TOLD, number, outcome))
