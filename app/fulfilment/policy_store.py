"""The policy of a sale in Postgres, on its home shard: read when it is needed, never kept."""

from typing import Final

from app.fulfilment.policy import Policy
from app.sales.policy import PolicyTerms, Refundable, ReviewRule
from app.sales.store import Act, note_act
from app.storage.shards import Shard

_COLUMNS: Final = """refundable, refund_window_seconds, review, review_from_minor,
    confirm_after_seconds"""
SELECT_POLICY: Final = f"SELECT {_COLUMNS} FROM sales WHERE sale = $1"
SET_POLICY: Final = """
UPDATE sales
SET refundable = $2, refund_window_seconds = $3, review = $4, review_from_minor = $5,
    confirm_after_seconds = $6
WHERE sale = $1"""


async def read_policy(home: Shard, sale: int) -> Policy:
    """Return the policy of a sale that is known to exist, from its home shard."""
    async with home.connection() as connection:
        row = await connection.fetchrow(SELECT_POLICY, sale)
    assert row is not None, f"a sale without a row: {sale}"
    return Policy(
        refundable=Refundable(row["refundable"]),
        refund_window_seconds=row["refund_window_seconds"],
        review=ReviewRule(row["review"]),
        review_from_minor=row["review_from_minor"],
        confirm_after_seconds=row["confirm_after_seconds"],
    )


async def set_policy(home: Shard, sale: int, sale_id: str, policy: PolicyTerms, actor: str) -> None:
    """Replace the policy of a sale, with its audit row; orders go by it from now on."""
    told = {
        "refundable": policy.refundable,
        "refund_window_seconds": policy.refund_window_seconds,
        "review": policy.review,
        "review_from_minor": policy.review_from_minor,
        "confirm_after_seconds": policy.confirm_after_seconds,
    }
    async with home.transaction() as connection:
        await connection.execute(SET_POLICY, sale, *told.values())
        await note_act(connection, Act(actor, None), "policy set", sale_id, told)
