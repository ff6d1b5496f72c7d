"""Each rule of refunds and of risk is violated once on purpose; the database itself refuses."""

import itertools
from typing import Final

import asyncpg
import pytest

from tests.stores.payments.desk import Desk
from tests.stores.payments.test_refunds import late_payment
from tests.style.sources import ROOT

PSEUDONYM: Final = "decode(repeat('ab', 16), 'hex')"
START: Final = f"""
INSERT INTO risk_starts (kind, pseudonym, start, started_at)
VALUES ('shopper', {PSEUDONYM}, {PSEUDONYM}, now())"""  # noqa: S608  made of constants
BLOCK: Final = f"""
INSERT INTO risk_blocks (kind, pseudonym, effect, reason, blocked_by, blocked_at)
VALUES ('shopper', {PSEUDONYM}, 'refuse', 'fraud', 'olga', now())"""  # noqa: S608  made of constants
HOLD: Final = """
INSERT INTO risk_holds (sale, bucket, epoch, seq, state, rule, held_at)
VALUES (1, 0, 1, 0, 'held', 'amount', now())"""
REFUSAL: Final = """
INSERT INTO risk_refusals (sale, bucket, epoch, seq, rule, first_at, last_at)
VALUES (1, 0, 1, 0, 'amount', now(), now())"""
KEYED: Final = """
UPDATE refunds SET idempotency_key = 'k1', fingerprint = '\\x0102030405060708'"""
SECOND: Final = """
INSERT INTO refunds SELECT (jsonb_populate_record(r, '{"number": "R1234567", "late": false}')).*
FROM refunds r"""
PAID_OUT: Final = "UPDATE refunds SET state = 'succeeded', by_hand = 'slip-1'"


def elsewhere(statement: str) -> str:
    """Let a row name an order that is not there."""
    return statement.replace("(1, 0, 1, 0,", "(1, 0, 1, 9,")


# the rule -> what stands there already, what must not be added to it
VIOLATIONS: Final = {
    "refunds_key_has_content": ("", "UPDATE refunds SET idempotency_key = 'k1'"),
    "refunds_one_per_key": (KEYED, SECOND),
    "refunds_by_hand_succeeded": ("", "UPDATE refunds SET by_hand = 'slip-1'"),
    "refunds_doubled_were_by_hand": ("", "UPDATE refunds SET doubled_at = now()"),
    "risk_holds_of_order": ("", elsewhere(HOLD)),
    "risk_holds_decided": (HOLD, "UPDATE risk_holds SET state = 'released'"),
    "risk_refusals_of_order": ("", elsewhere(REFUSAL)),
}
# Rules that bear the name which Postgres gave them, and a second way to break a named one.
UNNAMED: Final = {
    "refunds_fingerprint_check": ("", KEYED.replace("\\x01", "\\x")),
    "refunds_note_check": ("", "UPDATE refunds SET note = repeat('x', 81)"),
    "risk_starts_pkey": (START, START),
    "risk_starts_pseudonym_check": (START, "UPDATE risk_starts SET pseudonym = '\\x01'"),
    "risk_starts_start_check": (START, "UPDATE risk_starts SET start = '\\x01'"),
    "risk_blocks_pkey": (BLOCK, BLOCK),
    "risk_blocks_pseudonym_check": (BLOCK, "UPDATE risk_blocks SET pseudonym = '\\x01'"),
    "risk_blocks_reason_check": (BLOCK, "UPDATE risk_blocks SET reason = ''"),
    "risk_holds_pkey": (HOLD, HOLD),
    "risk_holds_decided": (HOLD, "UPDATE risk_holds SET decided_by = 'olga'"),
    "risk_refusals_pkey": (REFUSAL, REFUSAL),
    "refunds_by_hand_succeeded": (PAID_OUT, "UPDATE refunds SET by_hand = ''"),
}


def named_rules() -> set[str]:
    """Name the rules of the migrations that are about refunds and risk alone."""
    folder = ROOT / "app/storage/migrations/shard"
    text = " ".join(
        (folder / name).read_text(encoding="utf-8")
        for name in ("0002_refunds.sql", "0005_risk.sql", "0006_refunds_by_hand.sql")
    )
    words = itertools.pairwise(text.replace("UNIQUE INDEX", "CONSTRAINT").split())
    return {word for before, word in words if before == "CONSTRAINT"}


def test_every_named_rule_is_violated_here():
    assert named_rules() == set(VIOLATIONS)


async def test_each_rule_refuses_what_breaks_it(desk: Desk, subtests):
    await late_payment(desk)
    for rule, (stands, added) in (*VIOLATIONS.items(), *UNNAMED.items()):
        with subtests.test(rule):
            async with desk.shard.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                if stands:
                    await connection.execute(stands)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
                    await connection.execute(added)
                await transaction.rollback()
            assert refused.value.constraint_name == rule
