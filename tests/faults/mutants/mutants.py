"""
The service, deliberately broken: what each mutant changes, and which test must catch it.

Every piece of text to be replaced stands in its file exactly once. When code moves, the mutant
fails aloud instead of passing because nothing was broken.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLACE: Final = "lua/include/placing.lua"
FLUSH: Final = "app/orders/flush_store.py"
LUA_TESTS: Final = "tests/lua"
STORE_TESTS: Final = "tests/stores"


@dataclass(frozen=True, slots=True)
class Mutant:
    """
    One way to break a promise.

    Attributes:
        file: from the root of the project.
        changes: (what stands there, what stands there instead).
        caught_by: a test that passes on the sound tree and must fail here.
        often: whether `make test` tries it too.
    """

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    caught_by: str
    often: bool = False

    def apply(self, root: Path) -> None:
        """Break a copy of the tree."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        for sound, broken in self.changes:
            found = text.count(sound)
            assert found == 1, f"{self.name}: {found} times in {self.file}, not once: {sound!r}"
            text = text.replace(sound, broken)
        path.write_text(text, encoding="utf-8")


MUTANTS: Final = (
    Mutant(
        "no epoch fence",
        FLUSH,
        (('        and lease["epoch"] == position.epoch\n', ""),),
        f"{STORE_TESTS}/orders/test_flush_store.py::test_a_batch_of_another_epoch_is_fenced",
    ),
    Mutant(
        "no incarnation fence",
        PLACE,
        (("  if fields[1] ~= INCARNATION or fields[2]", "  if fields[2]"),),
        f"{LUA_TESTS}/orders/test_place_orders.py::test_every_order_is_stale",
    ),
    Mutant(
        "a longest length for the stream",
        PLACE,
        (('"XADD", orders, "*",', '"XADD", orders, "MAXLEN", "200", "*",'),),
        f"{LUA_TESTS}/orders/test_place_orders.py::test_no_entry_is_pushed_out_by_later_ones",
    ),
    Mutant(
        "trimmed too far",
        "lua/orders/trim_stream.lua",
        (('"XTRIM", orders, "MINID", "=", keep_from', '"XTRIM", orders, "MAXLEN", "=", 0'),),
        f"{LUA_TESTS}/orders/test_trim_stream.py"
        "::test_entries_up_to_the_offset_go_and_the_backlog_falls",
    ),
    Mutant(
        "a return is applied each time",
        "lua/include/give_back.lua",
        (('if redis.call("HEXISTS", moves, move_id) == 1 then', "if false then"),),
        f"{LUA_TESTS}/inventory/test_moves.py::test_a_move_is_applied_once",
        often=True,
    ),
    Mutant(
        "no CHECK on the lease",
        "app/storage/migrations/shard/0001_orders.sql",
        (("CHECK (0 <= reserved AND reserved <= granted)", "CHECK (true)"),),
        f"{STORE_TESTS}/orders/test_last_line.py::test_postgres_reserves_no_unit_beyond_the_lease",
    ),
    Mutant(
        "replays looked for after the stock",
        "lua/orders/place_orders.lua",
        (
            (
                "  if known then\n",
                "  if known and order[4] <= bucket.remaining then\n",
            ),
        ),
        f"{LUA_TESTS}/orders/test_place_orders.py::test_orders_placed_one_by_one",
        often=True,
    ),
    Mutant(
        "flushed without comparing the offset",
        FLUSH,
        (
            (
                '        and (lease["stream_ms"], lease["stream_seq"]) == tuple(position.offset)\n',
                "",
            ),
        ),
        f"{STORE_TESTS}/orders/test_flush_store.py"
        "::test_a_batch_from_an_old_offset_is_fenced_and_writes_nothing",
    ),
    Mutant(
        "the plain flush compares no epoch",
        "app/orders/plain_flush_store.py",
        (("AND epoch = $3 AND stream_ms", "AND (epoch = $3 OR true) AND stream_ms"),),
        f"{STORE_TESTS}/orders/test_flush_store.py::test_a_batch_of_another_epoch_is_fenced",
    ),
    Mutant(
        "renewed from whenever the renewal arrives",
        "lua/inventory/renew_lease.lua",
        (
            (
                "local now_ms = server_now_ms()\nlocal fields",
                "local now_ms = server_now_ms()\nasked_until_ms = now_ms + 4000\nlocal fields",
            ),
        ),
        f"{LUA_TESTS}/inventory/test_lease.py::test_renewals",
    ),
    Mutant(
        "a missing script is loaded and called again",
        "app/storage/lua.py",
        (
            (
                "    return await call_once(redis, *call, timeout_ms=timeout_ms)\n",
                (
                    "    await redis.script_load(script.text)\n"
                    "    return await call_once(redis, *call, timeout_ms=timeout_ms)\n"
                ),
            ),
        ),
        f"{LUA_TESTS}/test_script_connection.py::test_scripts_that_were_flushed_stay_missing",
    ),
    Mutant(
        "closed from whatever state",
        "app/orders/store.py",
        (
            (
                "      AND o.state = ANY($5::order_state[]) AND o.units_held > 0\n",
                "      AND $5::order_state[] IS NOT NULL AND o.units_held > 0\n",
            ),
            (
                "closed_at = now(), units_held = 0\n    FROM unnest",
                "closed_at = now(), units_held = 0, paid_at = NULL\n    FROM unnest",
            ),
        ),
        f"{STORE_TESTS}/orders/test_last_line.py::test_an_order_paid_meanwhile_is_not_closed",
    ),
    Mutant(
        "a callback's amount is not compared",
        "app/payments/intent.py",
        (
            (
                (
                    "        return Check.ACCOUNT_MISMATCH\n"
                    "    return _check_amount(snapshot, attempt.amount_minor, attempt.currency)\n"
                ),
                "        return Check.ACCOUNT_MISMATCH\n    return Check.ACCEPTED\n",
            ),
        ),
        f"{STORE_TESTS}/payments/test_capture.py"
        "::test_a_message_that_contradicts_us_has_no_effect_and_is_kept",
    ),
    Mutant(
        "a fact's transfers get new ids each time",
        "app/settlement/transfer.py",
        (
            ("from uuid import UUID, uuid5\n", "from uuid import UUID, uuid4, uuid5\n"),
            (
                '    return uuid5(LEDGER_NAMESPACE, "/".join(business_key))\n',
                "    return uuid4()\n",
            ),
        ),
        "tests/faults/steps/test_steps.py::test_a_process_killed_here_leaves_nothing_undone"
        "[poster.after_ledger-capture_to_post]",
    ),
    Mutant(
        "a message is on record before it has its effect",
        "app/payments/capture.py",
        (
            (
                (
                    "        outcome = await self._take_effect(order, attempt)\n"
                    "        account = self._provider.account.name\n"
                    "        await store.insert_event(self._connection, account, attempt.number, "
                    "outcome, self._verified)\n"
                ),
                (
                    "        account = self._provider.account.name\n"
                    "        shard = self._stage.shards.of(order.key.sale, order.key.bucket)\n"
                    "        async with shard.transaction() as early:\n"
                    "            await store.insert_event(early, account, attempt.number, "
                    "EventOutcome.PAID, self._verified)\n"
                    "        outcome = await self._take_effect(order, attempt)\n"
                ),
            ),
        ),
        f"{STORE_TESTS}/payments/test_capture.py"
        "::test_a_failure_before_the_commit_is_not_acknowledged",
    ),
    Mutant(
        "a seat is not returned",
        "lua/inventory/return_group_units.lua",
        (("    entry.seats = math.max(0, entry.seats - 1)\n", ""),),
        f"{STORE_TESTS}/orders/test_groups.py::test_an_unpaid_seat_comes_back_and_can_be_taken",
    ),
    Mutant(
        "a group is paid and formed whatever its state",
        "app/orders/groups/store.py",
        (
            (
                "WHERE {_THIS_GROUP} AND state = 'open'\nRETURNING state",
                "WHERE {_THIS_GROUP}\nRETURNING state",
            ),
        ),
        f"{STORE_TESTS}/orders/test_groups.py::test_a_payment_after_the_end_is_given_back",
    ),
    Mutant(
        "a full group takes one more",
        "lua/orders/place_group_orders.lua",
        (("group.seats >= plan.terms.size", "group.seats > plan.terms.size"),),
        f"{LUA_TESTS}/orders/test_place_group_orders.py::test_orders_placed_one_by_one",
    ),
)
