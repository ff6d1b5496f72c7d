"""Each named rule of a shard's tables is violated once on purpose."""

import itertools

import asyncpg
import pytest

from tests.stores.orders.bucket_rows import entry
from tests.style.sources import ROOT

SALE_ROW = """
INSERT INTO sales (sale, id, kind, title, sku, merchant, price_minor, currency, stock_total, pool,
                   limit_per_shopper, opens_at, closes_at, pay_within_seconds, buckets, state)
VALUES (1, 'spring', 'seckill', 'Spring', 'tea', 'acme', 100, 'CNY', 100, 100, 2, now(),
        now() + interval '1 hour', 900, 1, 'draft')"""
NAME_ROW = """
INSERT INTO sale_directory (id, sale, home_shard, idempotency_key, fingerprint)
VALUES ('spring', 1, 1, 'k1', '')"""
CREDIT_ROW = """
INSERT INTO pool_credits (source, source_id, sale, bucket, units) VALUES ('move', 7, 1, 0, 5)"""
WRITE_ROW = """
INSERT INTO sale_writes (sale, idempotency_key, fingerprint, result) VALUES (1, 'k1', '', '{}')"""
GRANT_ROW = """
INSERT INTO applied_grants (sale, bucket, grant_id, units) VALUES (1, 0, 7, 5)"""
RETURN_ROW = """
INSERT INTO bucket_moves (sale, bucket, kind, units, shopper, order_epoch, order_seq, epoch)
VALUES (1, 0, 'return', 1, 'ann', 3, 0, 3)"""
LETTER_ROW = """
INSERT INTO dead_letters (kind, reason, sale, bucket, epoch, seq, raw)
VALUES ('order', 'key_taken', 1, 0, 3, 9, '')"""
FACT_ROW = "INSERT INTO outbox (kind, business_id, payload) VALUES ('paid', '1', '{}')"
GROUP_ROW = """
INSERT INTO groups (sale, bucket, id, size, state, leader_epoch, leader_seq, opened_at, expires_at)
VALUES (1, 0, '3.0', 3, 'open', 3, 0, now(), now() + interval '1 hour')"""
SEAT_ROW = """
INSERT INTO bucket_moves (sale, bucket, kind, units, epoch) VALUES (1, 0, 'seat', 0, 3)"""
SECOND_ORDER = """
INSERT INTO orders SELECT (jsonb_populate_record(o, '{0}')).* FROM orders o WHERE shopper = 'ann'"""
SET_ORDER = "UPDATE orders SET {0} WHERE shopper = 'ann'"

# the rule -> what stands there already, what must not be added to it
VIOLATIONS = {
    "sale_directory_one_id_per_number": (
        NAME_ROW,
        NAME_ROW.replace("spring", "autumn").replace("k1", "k2"),
    ),
    "sale_directory_one_per_key": (
        NAME_ROW,
        NAME_ROW.replace("spring", "autumn").replace(", 1, 1,", ", 2, 1,"),
    ),
    "sales_one_per_id": (SALE_ROW, SALE_ROW.replace("(1,", "(2,")),
    "sales_pool_within_stock": (SALE_ROW, "UPDATE sales SET pool = 101"),
    "sales_window": (SALE_ROW, "UPDATE sales SET closes_at = opens_at"),
    "sales_group_terms": (SALE_ROW, "UPDATE sales SET group_size = 3"),
    "sales_group_one_bucket": (
        SALE_ROW,
        "UPDATE sales SET kind = 'group', group_size = 3, buckets = 2",
    ),
    "sales_group_terms_whole": (
        SALE_ROW,
        "UPDATE sales SET kind = 'group', group_size = 3, group_window_seconds = 600",
    ),
    "pool_credits_once": (SALE_ROW + "; " + CREDIT_ROW, CREDIT_ROW),
    "sale_writes_once": (SALE_ROW + "; " + WRITE_ROW, WRITE_ROW),
    "bucket_leases_never_oversell": ("", "UPDATE bucket_leases SET reserved = granted + 1"),
    "bucket_leases_group_terms": ("", "UPDATE bucket_leases SET group_window_seconds = 600"),
    "bucket_leases_counts": ("", "UPDATE bucket_leases SET orders_seen = -1"),
    "applied_grants_once": (GRANT_ROW, GRANT_ROW),
    "bucket_moves_one_return_per_order": (RETURN_ROW, RETURN_ROW),
    "bucket_moves_return_names_its_order": ("", RETURN_ROW.replace("'ann'", "NULL")),
    "orders_key": ("", SECOND_ORDER.format('{"shopper": "bob"}')),
    "orders_one_per_placement_key": ("", SECOND_ORDER.format('{"seq": 9}')),
    "orders_total": ("", SET_ORDER.format("total_minor = total_minor + 1")),
    "orders_refund_within_total": ("", SET_ORDER.format("refunded_minor = total_minor + 1")),
    "orders_units_held": ("", SET_ORDER.format("units_held = 0")),
    "orders_reason": ("", SET_ORDER.format("state = 'closing'")),
    "orders_paid_at": ("", SET_ORDER.format("state = 'paid'")),
    "orders_closed_at": (
        "",
        SET_ORDER.format("state = 'closed', reason = 'expired', units_held = 0"),
    ),
    "order_events_key": (
        "",
        "INSERT INTO order_events SELECT * FROM order_events",
    ),
    "bucket_moves_seat_names_its_group": ("", SEAT_ROW),
    "groups_key": (GROUP_ROW, GROUP_ROW),
    "groups_seats": (GROUP_ROW, "UPDATE groups SET seats_paid = -1"),
    "groups_formed_when_paid": (
        GROUP_ROW,
        "UPDATE groups SET state = 'formed', settled_at = now(), seats_paid = 2",
    ),
    "groups_open_while_unpaid": (GROUP_ROW, "UPDATE groups SET seats_paid = 3"),
    "groups_settled": (GROUP_ROW, "UPDATE groups SET settled_at = now()"),
    "groups_merged": (GROUP_ROW, "UPDATE groups SET merged_into = '3.1'"),
    "outbox_one_fact": (FACT_ROW, FACT_ROW),
    "dead_letters_one_per_order": (LETTER_ROW, LETTER_ROW),
    "dead_letters_order_named": ("", LETTER_ROW.replace("3, 9", "3, NULL")),
}


def named_rules():
    folder = ROOT / "app/storage/migrations/shard"
    text = " ".join(
        (folder / name).read_text(encoding="utf-8")
        for name in ("0001_orders.sql", "0004_groups.sql")
    )
    words = itertools.pairwise(text.split())
    return {word for before, word in words if before == "CONSTRAINT"}


def test_every_named_rule_is_violated_here_or_by_the_tests_of_payments():
    others = ("payment_attempts_", "provider_events_", "refunds_")

    assert {rule for rule in named_rules() if not rule.startswith(others)} == set(VIOLATIONS)


async def test_each_rule_refuses_what_breaks_it(bucket, subtests):
    await bucket.flush(entry(1, 0, "ann"))
    for rule, (stands, added) in VIOLATIONS.items():
        with subtests.test(rule):
            async with bucket.shard.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                if stands:
                    await connection.execute(stands)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
                    await connection.execute(added)
                await transaction.rollback()
            assert refused.value.constraint_name == rule


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE order_events SET actor = 'nobody'",
        "DELETE FROM order_events",
        "DELETE FROM audit_rows",
        "UPDATE audit_rows SET actor = 'nobody'",
    ],
)
async def test_history_is_only_ever_added_to(bucket, statement):
    await bucket.flush(entry(1, 0, "ann"))
    await bucket.execute("INSERT INTO audit_rows (actor, act, subject) VALUES ('a', 'b', 'c')")
    with pytest.raises(asyncpg.RestrictViolationError, match="insert-only"):
        await bucket.execute(statement)
