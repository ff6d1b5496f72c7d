"""
The books in Postgres: post a batch of transfers once, and read them back.

Locks are taken in one order by everybody: orders (advisory), accounts that are
new (by code), transfers (by id), accounts (by id). So two posters wait for each
other and never in a circle. The accounts come last and are held only while the
batch is folded.
"""

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from app.kernel.errors import IdempotencyMismatch
from app.settlement.balance import Balance, Entry, fold
from app.settlement.chart import Account, Guard, Side, TransferKind
from app.settlement.errors import TransferRefused
from app.settlement.posting import BUSINESS_TYPE
from app.settlement.tax import Reversal
from app.settlement.transfer import Transfer
from app.storage.shards import Connection

LOCK_ORDERS: Final = """
SELECT pg_advisory_xact_lock(key)
FROM (SELECT DISTINCT hashtextextended(order_id, 0) AS key
      FROM unnest($1::text[]) AS order_id
      ORDER BY key) AS keys"""

SELECT_REVERSALS: Final = """
SELECT business_id AS order_id, reference AS refund_no,
       coalesce(sum(amount_minor) FILTER (WHERE kind = $3), 0)::bigint AS net_minor,
       coalesce(sum(amount_minor) FILTER (WHERE kind = $4), 0)::bigint AS tax_minor
FROM ledger_transfers
WHERE business_type = $1 AND business_id = ANY ($2::text[]) AND kind IN ($3, $4)
GROUP BY business_id, reference"""

SELECT_ACCOUNT_IDS: Final = """
SELECT id, code, currency::text AS currency FROM ledger_accounts WHERE code = ANY ($1::text[])"""

INSERT_ACCOUNTS: Final = """
INSERT INTO ledger_accounts (code, currency, kind, normal_side, guard)
SELECT code, currency, kind::account_kind, normal_side::ledger_side, guard::account_guard
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS given (code, currency, kind, normal_side, guard)
ORDER BY code
ON CONFLICT (code) DO NOTHING"""

INSERT_TRANSFERS: Final = """
INSERT INTO ledger_transfers (
    id, batch_id, debit_account, credit_account, amount_minor, currency, kind, state,
    pending_id, business_type, business_id, reference, effective_at, request_hash)
SELECT id, batch_id, debit_account, credit_account, amount_minor, currency, kind,
       state::transfer_state, pending_id, business_type, business_id, reference,
       effective_at, request_hash
FROM unnest(
    $1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
    $8::text[], $9::uuid[], $10::text[], $11::text[], $12::text[], $13::timestamptz[],
    $14::bytea[])
    AS given (
        id, batch_id, debit_account, credit_account, amount_minor, currency, kind, state,
        pending_id, business_type, business_id, reference, effective_at, request_hash)
ON CONFLICT (id) DO NOTHING
RETURNING id"""

SELECT_HASHES: Final = """
SELECT id, request_hash FROM ledger_transfers WHERE id = ANY ($1::uuid[])"""

SELECT_ANNOUNCED: Final = """
SELECT id, amount_minor FROM ledger_transfers WHERE id = ANY ($1::uuid[])"""

LOCK_ACCOUNTS: Final = """
SELECT id, code, normal_side::text AS normal_side, guard::text AS guard,
       debits_posted, credits_posted, debits_pending, credits_pending, version
FROM ledger_accounts WHERE id = ANY ($1::bigint[])
ORDER BY id
FOR NO KEY UPDATE"""

INSERT_ENTRIES: Final = """
INSERT INTO ledger_entries
    (account_id, version, transfer_id, side, amount_minor, net_before, net_after)
SELECT account_id, version, transfer_id, side::ledger_side, amount_minor, net_before, net_after
FROM unnest(
    $1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS given (account_id, version, transfer_id, side, amount_minor, net_before, net_after)"""

FOLD_ACCOUNTS: Final = """
UPDATE ledger_accounts AS account
SET debits_posted = given.debits_posted, credits_posted = given.credits_posted,
    debits_pending = given.debits_pending, credits_pending = given.credits_pending,
    version = given.version
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS given (id, debits_posted, credits_posted, debits_pending, credits_pending, version)
WHERE account.id = given.id"""


async def lock_orders(connection: Connection, order_ids: Iterable[str]) -> None:
    """Let nobody else post for these orders until the transaction ends."""
    await connection.execute(LOCK_ORDERS, list(order_ids))


async def read_reversals(connection: Connection, order_ids: Iterable[str]) -> list[Reversal]:
    """Return what refunds of our own goods have taken back, for these orders."""
    rows = await connection.fetch(
        SELECT_REVERSALS,
        BUSINESS_TYPE,
        list(order_ids),
        TransferKind.REVERSE_REVENUE,
        TransferKind.REVERSE_TAX,
    )
    return [Reversal(**dict(row)) for row in rows]


async def post_transfers(connection: Connection, transfers: Sequence[Transfer]) -> int:
    """
    Write transfers that the books do not have yet, and fold them into the balances.

    All or none: the caller's transaction is of no more use after an error. A
    transfer that is there with the same content is left as it is.

    Args:
        connection: in a READ COMMITTED transaction on the ledger.
        transfers: any number, of any orders and currencies; ids may repeat.

    Returns:
        How many were new.

    Raises:
        IdempotencyMismatch: an id is there, or comes twice, with other content.
        TransferRefused: a rule of the books is broken; `rule` names it.
        LedgerUnavailable: no answer; nothing was written.
    """
    if not transfers:
        return 0
    with _refusals():
        account_ids = await _open_accounts(connection, transfers)
        new = await _insert_transfers(connection, transfers, account_ids)
        if new:
            await _fold(connection, new, account_ids)
    return len(new)


async def _open_accounts(
    connection: Connection,
    transfers: Iterable[Transfer],
) -> dict[str, int]:
    """Return code -> id of every account that is named, opening those that are new."""
    named = {
        account.code: account
        for transfer in transfers
        for account in (transfer.debit, transfer.credit)
    }
    codes = list(named)
    rows = await connection.fetch(SELECT_ACCOUNT_IDS, codes)
    if len(rows) < len(named):
        known = {row["code"] for row in rows}
        await _insert_accounts(connection, [named[code] for code in named.keys() - known])
        rows = await connection.fetch(SELECT_ACCOUNT_IDS, codes)
    return {row["code"]: row["id"] for row in rows}


async def _insert_accounts(connection: Connection, accounts: Sequence[Account]) -> None:
    await connection.execute(
        INSERT_ACCOUNTS,
        [account.code for account in accounts],
        [account.currency for account in accounts],
        [account.kind for account in accounts],
        [account.normal_side for account in accounts],
        [account.guard for account in accounts],
    )


async def _insert_transfers(
    connection: Connection,
    transfers: Sequence[Transfer],
    account_ids: Mapping[str, int],
) -> list[Transfer]:
    """Insert by ascending id; return the new ones in the order they were given."""
    hashes = [transfer.request_hash() for transfer in transfers]
    unique, hash_of = _once_per_id(transfers, hashes)
    by_id = sorted(unique, key=lambda transfer: transfer.id)
    columns = [_columns(transfer, account_ids, hash_of[transfer.id]) for transfer in by_id]
    rows = await connection.fetch(INSERT_TRANSFERS, *zip(*columns, strict=True))
    inserted = {row["id"] for row in rows}
    if len(inserted) < len(unique):
        await _compare_stored(connection, hash_of, inserted)
    return [transfer for transfer in unique if transfer.id in inserted]


def _once_per_id(
    transfers: Sequence[Transfer],
    hashes: Sequence[bytes],
) -> tuple[list[Transfer], dict[UUID, bytes]]:
    unique: list[Transfer] = []
    hash_of: dict[UUID, bytes] = {}
    for transfer, request_hash in zip(transfers, hashes, strict=True):
        if transfer.id not in hash_of:
            hash_of[transfer.id] = request_hash
            unique.append(transfer)
        elif hash_of[transfer.id] != request_hash:
            raise IdempotencyMismatch(transfer=str(transfer.id), kind=str(transfer.kind))
    return unique, hash_of


def _columns(
    transfer: Transfer,
    account_ids: Mapping[str, int],
    request_hash: bytes,
) -> tuple[object, ...]:
    """Return one row in the order of INSERT_TRANSFERS."""
    return (
        transfer.id,
        transfer.batch_id,
        account_ids[transfer.debit.code],
        account_ids[transfer.credit.code],
        transfer.amount_minor,
        transfer.currency,
        transfer.kind,
        transfer.state,
        transfer.pending_id,
        transfer.business_type,
        transfer.business_id,
        transfer.reference,
        transfer.effective_at,
        request_hash,
    )


async def _compare_stored(
    connection: Connection,
    hash_of: Mapping[UUID, bytes],
    inserted: set[UUID],
) -> None:
    """Check that what was there already is what we were about to write."""
    rows = await connection.fetch(SELECT_HASHES, list(hash_of.keys() - inserted))
    for row in rows:
        if row["request_hash"] != hash_of[row["id"]]:
            raise IdempotencyMismatch(transfer=str(row["id"]))


async def _fold(
    connection: Connection,
    new: Sequence[Transfer],
    account_ids: Mapping[str, int],
) -> None:
    announced = await _read_announced(connection, new)
    balances = await _lock_balances(connection, new, account_ids)
    entries = fold(balances, new, announced)
    if entries:
        await _insert_entries(connection, entries)
    await _write_balances(connection, list(balances.values()))


async def _read_announced(connection: Connection, new: Sequence[Transfer]) -> dict[UUID, int]:
    """Return id -> whole amount of the pending transfers that are resolved."""
    pending = [transfer.pending_id for transfer in new if transfer.pending_id is not None]
    if not pending:
        return {}
    rows = await connection.fetch(SELECT_ANNOUNCED, pending)
    return {row["id"]: row["amount_minor"] for row in rows}


async def _lock_balances(
    connection: Connection,
    new: Sequence[Transfer],
    account_ids: Mapping[str, int],
) -> dict[str, Balance]:
    codes = {code for transfer in new for code in (transfer.debit.code, transfer.credit.code)}
    rows = await connection.fetch(LOCK_ACCOUNTS, [account_ids[code] for code in codes])
    return {
        row["code"]: Balance(
            account_id=row["id"],
            code=row["code"],
            normal_side=Side(row["normal_side"]),
            guard=Guard(row["guard"]),
            debits_posted=row["debits_posted"],
            credits_posted=row["credits_posted"],
            debits_pending=row["debits_pending"],
            credits_pending=row["credits_pending"],
            version=row["version"],
        )
        for row in rows
    }


async def _insert_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    await connection.execute(INSERT_ENTRIES, *zip(*entries, strict=True))


async def _write_balances(connection: Connection, balances: Sequence[Balance]) -> None:
    await connection.execute(
        FOLD_ACCOUNTS,
        [balance.account_id for balance in balances],
        [balance.debits_posted for balance in balances],
        [balance.credits_posted for balance in balances],
        [balance.debits_pending for balance in balances],
        [balance.credits_pending for balance in balances],
        [balance.version for balance in balances],
    )


@contextlib.contextmanager
def _refusals() -> Generator[None]:
    """Turn a violated rule of the books into TransferRefused, once."""
    try:
        yield
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        rule = error.constraint_name or error.sqlstate
        raise TransferRefused(rule=rule, why=str(error)) from error
