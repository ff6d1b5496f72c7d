-- The ledger: double entry, insert-only, one database for the deployment.
--
-- A transfer moves one positive amount from one account (credit) to another
-- (debit) and is never changed; a mistake is undone by a correcting transfer. Each
-- posted transfer has two entries, numbered without gaps per account, each
-- with the account's net (debits less credits) before and after. The counters of an
-- account are folded once per posted batch, never once per order.

CREATE DOMAIN currency_code AS text CHECK (VALUE ~ '^[A-Z]{3}$');

CREATE TYPE account_kind AS ENUM ('asset', 'liability', 'income', 'expense', 'equity');
CREATE TYPE account_guard AS ENUM ('none', 'no_negative');
CREATE TYPE ledger_side AS ENUM ('debit', 'credit');
CREATE TYPE transfer_state AS ENUM ('posted', 'pending', 'post', 'void');

CREATE TABLE ledger_accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL CHECK (length(code) BETWEEN 1 AND 120),
    currency currency_code NOT NULL,
    kind account_kind NOT NULL,
    normal_side ledger_side NOT NULL,
    guard account_guard NOT NULL DEFAULT 'none',
    debits_posted bigint NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
    credits_posted bigint NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
    debits_pending bigint NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
    credits_pending bigint NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
    -- Entries so far; the last entry of the account bears this number.
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_accounts_one_per_code UNIQUE (code),
    CONSTRAINT ledger_accounts_currency UNIQUE (id, currency),
    CONSTRAINT ledger_accounts_normal_side_of_kind CHECK
        ((normal_side = 'debit') = (kind IN ('asset', 'expense')))
) WITH (fillfactor = 50);  -- a few rows, folded for ever: leave room for HOT updates

CREATE TABLE ledger_transfers (
    id uuid PRIMARY KEY,
    -- All transfers of one business fact; they were posted in one transaction.
    batch_id uuid NOT NULL,
    debit_account bigint NOT NULL,
    credit_account bigint NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    -- Only the shape is checked: a list would have to be rewritten, over a table
    -- that only grows, with every fact the business learns. chart.py has the list.
    kind text NOT NULL CONSTRAINT ledger_transfers_kind CHECK (kind ~ '^[a-z][a-z_]{0,39}$'),
    state transfer_state NOT NULL,
    pending_id uuid,
    business_type text NOT NULL CHECK (business_type <> ''),
    business_id text NOT NULL CHECK (business_id <> ''),
    -- The number a provider knows it by (attempt, refund): what reconciliation matches.
    reference text NOT NULL,
    effective_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    request_hash bytea NOT NULL,
    CONSTRAINT ledger_transfers_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT ledger_transfers_two_accounts CHECK (debit_account <> credit_account),
    CONSTRAINT ledger_transfers_resolver_names_pending CHECK
        ((state IN ('post', 'void')) = (pending_id IS NOT NULL)),
    CONSTRAINT ledger_transfers_hash_is_sha256 CHECK (length(request_hash) = 32),
    -- With the currency in the key, a transfer cannot cross currencies.
    CONSTRAINT ledger_transfers_debit_currency
        FOREIGN KEY (debit_account, currency) REFERENCES ledger_accounts (id, currency),
    CONSTRAINT ledger_transfers_credit_currency
        FOREIGN KEY (credit_account, currency) REFERENCES ledger_accounts (id, currency),
    CONSTRAINT ledger_transfers_pending_exists
        FOREIGN KEY (pending_id) REFERENCES ledger_transfers
);
CREATE UNIQUE INDEX ledger_transfers_resolved_once ON ledger_transfers (pending_id)
    WHERE pending_id IS NOT NULL;
CREATE INDEX ledger_transfers_of_business ON ledger_transfers (business_type, business_id);

CREATE TABLE ledger_entries (
    account_id bigint NOT NULL REFERENCES ledger_accounts,
    version bigint NOT NULL CHECK (version > 0),
    transfer_id uuid NOT NULL REFERENCES ledger_transfers,
    side ledger_side NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    net_before bigint NOT NULL,
    net_after bigint NOT NULL,
    CONSTRAINT ledger_entries_numbered PRIMARY KEY (account_id, version),
    CONSTRAINT ledger_entries_one_per_side UNIQUE (transfer_id, side),
    CONSTRAINT ledger_entries_add_up CHECK
        (net_after - net_before = CASE side WHEN 'debit' THEN amount_minor ELSE -amount_minor END)
);

-- A resolver moves what its pending transfer announced: the same two accounts, at
-- most the same amount, all of it when it is let go. AFTER, because both may
-- arrive in one INSERT.
CREATE FUNCTION ledger_check_resolver() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM ledger_transfers AS pending
    WHERE pending.id = NEW.pending_id
      AND pending.state = 'pending'
      AND pending.debit_account = NEW.debit_account
      AND pending.credit_account = NEW.credit_account
      AND pending.amount_minor >= NEW.amount_minor
      AND (NEW.state = 'post' OR pending.amount_minor = NEW.amount_minor);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'transfer % does not fit the pending transfer it resolves', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transfers_resolver_fits';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_transfers_resolver_fits AFTER INSERT ON ledger_transfers
    FOR EACH ROW WHEN (NEW.pending_id IS NOT NULL) EXECUTE FUNCTION ledger_check_resolver();

-- The books are only ever added to -------------------------------------------
-- Triggers bind everybody, the owner and a superuser too; the grants below bind
-- the role that a deployment logs in with.

CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is insert-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER ledger_transfers_insert_only BEFORE UPDATE OR DELETE ON ledger_transfers
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_transfers_never_emptied BEFORE TRUNCATE ON ledger_transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entries_insert_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entries_never_emptied BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_accounts_never_deleted BEFORE DELETE ON ledger_accounts
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_accounts_never_emptied BEFORE TRUNCATE ON ledger_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- Of an account only the counters move, and what is posted only grows.
CREATE FUNCTION ledger_refuse_reshaping() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'account % may only be folded forward', OLD.code
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER ledger_accounts_fold_forward BEFORE UPDATE ON ledger_accounts
    FOR EACH ROW WHEN (
        (NEW.id, NEW.code, NEW.currency, NEW.kind, NEW.normal_side, NEW.guard, NEW.created_at)
            IS DISTINCT FROM
        (OLD.id, OLD.code, OLD.currency, OLD.kind, OLD.normal_side, OLD.guard, OLD.created_at)
        OR NEW.debits_posted < OLD.debits_posted
        OR NEW.credits_posted < OLD.credits_posted
        OR NEW.version < OLD.version)
    EXECUTE FUNCTION ledger_refuse_reshaping();

REVOKE UPDATE, DELETE, TRUNCATE ON ledger_transfers, ledger_entries, ledger_accounts FROM PUBLIC;

-- The role a deployment's ledger login is made a member of. Roles belong to the
-- whole server: another ledger may have made it already, even at this moment.
DO $$
BEGIN
    IF NOT (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        RAISE NOTICE 'role doorbuster_ledger is left to the administrator';
        RETURN;
    END IF;
    BEGIN
        CREATE ROLE doorbuster_ledger NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    GRANT SELECT, INSERT ON ledger_accounts, ledger_transfers, ledger_entries TO doorbuster_ledger;
    GRANT UPDATE (debits_posted, credits_posted, debits_pending, credits_pending, version)
        ON ledger_accounts TO doorbuster_ledger;
END $$;
