"""What the audit of groups asks of Postgres; every rule compares rows that change together."""

from typing import Final

from app.orders.audit_store import Rule
from app.orders.groups.store import REFUND_MEMBER

_HERE: Final = "($1::int[] IS NULL OR g.sale = ANY ($1))"
_MEMBERS: Final = "(o.sale, o.bucket, o.group_id) = (g.sale, g.bucket, g.id)"
_GROUP: Final = "format('group %s/%s/%s', g.sale, g.bucket, g.id)"
_ORDER: Final = "format('order %s/%s/%s/%s', o.sale, o.bucket, o.epoch, o.seq)"

SELECT_SALES: Final = """
SELECT sale, sale_id FROM bucket_leases
WHERE kind = 'group' AND ($1::int[] IS NULL OR sale = ANY ($1))"""
COUNT_UNSETTLED: Final = """
SELECT count(*) AS moving FROM groups
WHERE sale = $1 AND bucket = $2 AND state <> 'open' AND released_at IS NULL"""

GROUP_RULES: Final = (
    Rule(
        "I23",
        "groups with more members than seats",
        f"""
        SELECT g.sale, {_GROUP} || format(' has %s of %s', count(*), g.size) AS example
        FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE o.state IN ('pending', 'paid', 'shipped', 'completed') AND {_HERE}
        GROUP BY g.sale, g.bucket, g.id, g.size HAVING count(*) > g.size""",
    ),
    Rule(
        "I23",
        "open groups whose paid seats are not their paid orders",
        f"""
        SELECT g.sale, {_GROUP} || format(' counts %s, %s are paid', g.seats_paid, count(o.seq))
                   AS example
        FROM groups g LEFT JOIN orders o ON {_MEMBERS} AND o.state IN ('paid', 'shipped')
        WHERE g.state = 'open' AND {_HERE}
        GROUP BY g.sale, g.bucket, g.id, g.seats_paid HAVING count(o.seq) <> g.seats_paid""",
    ),
    Rule(
        "I23",
        "formed groups that not every seat has paid for",
        f"""
        SELECT g.sale, {_GROUP} || format(' was paid by %s of %s', count(o.seq), g.size)
                   AS example
        FROM groups g LEFT JOIN orders o ON {_MEMBERS} AND o.paid_at IS NOT NULL
        WHERE g.state = 'formed' AND {_HERE}
        GROUP BY g.sale, g.bucket, g.id, g.size HAVING count(o.seq) < g.size""",
    ),
    Rule(
        "I23",
        "orders in formed groups that may still be paid, or not",
        f"""
        SELECT g.sale, {_ORDER} AS example FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE g.state = 'formed' AND o.state = 'pending' AND {_HERE}""",
    ),
    Rule(
        "I23",
        "paid members of failed groups whom nobody refunds",
        f"""
        SELECT g.sale, {_ORDER} || ' is ' || o.state AS example
        FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE g.state IN ('failed', 'merged') AND o.state IN ('paid', 'shipped', 'completed')
          AND {_HERE} AND NOT EXISTS (
            SELECT FROM outbox a
            WHERE a.kind = '{REFUND_MEMBER}' AND a.done_at IS NULL
              AND a.business_id = concat_ws('/', o.sale, o.bucket, o.epoch, o.seq))""",
    ),
    Rule(
        "I23",
        "orders shipped before their group had formed",
        f"""
        SELECT g.sale, {_ORDER} AS example FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE g.state <> 'formed' AND o.state IN ('shipped', 'completed') AND {_HERE}""",
    ),
    Rule(
        "I23",
        "shoppers in two open groups of a sale",
        f"""
        SELECT g.sale, format('shopper %s is in %s', o.shopper, count(DISTINCT g.id)) AS example
        FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE g.state = 'open' AND o.state IN ('pending', 'paid') AND {_HERE}
        GROUP BY g.sale, o.shopper HAVING count(*) > 1""",
    ),
    Rule(
        "I23",
        "orders of group sales in no group",
        f"""
        SELECT g.sale, {_ORDER} AS example FROM bucket_leases g
        JOIN orders o USING (sale, bucket)
        WHERE g.kind = 'group' AND {_HERE} AND NOT EXISTS (
            SELECT FROM groups t WHERE (t.sale, t.bucket, t.id) = (o.sale, o.bucket, o.group_id))
        """,
    ),
    Rule(
        "I23",
        "members who may pay after the end of their group",
        f"""
        SELECT g.sale, {_ORDER} AS example FROM groups g JOIN orders o ON {_MEMBERS}
        WHERE o.state = 'pending' AND o.pay_by > g.expires_at AND {_HERE}""",
    ),
)
