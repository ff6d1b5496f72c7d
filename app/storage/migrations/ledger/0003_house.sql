-- Ways to pay that need no other company: by proof, by bank transfer, from a balance.
--
-- They live beside the books because what they decide (a unit of a balance spent, a
-- bank line matched) is posted in the same transaction (docs/decisions/0029-house.md).

CREATE TABLE house_payments (
    number text PRIMARY KEY CHECK (number ~ '^[0-9A-Z]{28}$'),
    provider text NOT NULL CHECK (provider IN ('offline', 'transfer', 'balance')),
    remittance_code text,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency currency_code NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'paid', 'closed')),
    -- Of the proof, the bank line or the entry of the balance: one pays one payment.
    reference text CHECK (reference <> ''),
    note text,
    actor text,
    paid_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT house_payments_paid_by_reference CHECK
        ((state = 'paid') = (reference IS NOT NULL AND paid_at IS NOT NULL)),
    CONSTRAINT house_payments_code_of_transfer CHECK
        ((provider = 'transfer') = (remittance_code IS NOT NULL)),
    CONSTRAINT house_payments_one_per_code UNIQUE (remittance_code),
    CONSTRAINT house_payments_one_per_reference UNIQUE (provider, reference)
);

CREATE TABLE house_refunds (
    number text PRIMARY KEY CHECK (number ~ '^[0-9A-Za-z]{8,64}$'),
    payment_number text NOT NULL REFERENCES house_payments,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency currency_code NOT NULL,
    state text NOT NULL CHECK (state IN ('processing', 'succeeded')),
    reference text CHECK (reference <> ''),
    note text,
    actor text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    succeeded_at timestamptz,
    CONSTRAINT house_refunds_succeeded_by_reference CHECK
        ((state = 'succeeded') = (reference IS NOT NULL AND succeeded_at IS NOT NULL))
);
CREATE INDEX house_refunds_waiting ON house_refunds (number) WHERE state = 'processing';

CREATE TABLE balances (
    id text PRIMARY KEY CHECK (id ~ '^bal_[0-9a-f]{32}$'),
    shopper text NOT NULL,
    currency currency_code NOT NULL,
    balance_minor bigint NOT NULL CONSTRAINT balances_never_overdrawn CHECK (balance_minor >= 0),
    entries bigint NOT NULL CHECK (entries >= 0), -- the last entry bears this number
    opened_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT balances_one_per_currency UNIQUE (shopper, currency)
);

CREATE TABLE balance_entries (
    balance_id text NOT NULL REFERENCES balances,
    ordinal bigint NOT NULL CHECK (ordinal > 0),
    kind text NOT NULL CHECK (kind IN ('top_up', 'payment', 'refund')),
    reference text NOT NULL, -- the request's key, the payment's or the refund's number
    amount_minor bigint NOT NULL, -- of a payment negative
    balance_after_minor bigint NOT NULL CHECK (balance_after_minor >= 0),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT balance_entries_numbered PRIMARY KEY (balance_id, ordinal),
    CONSTRAINT balance_entries_once UNIQUE (kind, reference),
    CONSTRAINT balance_entries_sign CHECK
        (amount_minor <> 0 AND (amount_minor < 0) = (kind = 'payment'))
);

-- Each line of a bank statement once; who paid is the bank's knowledge and not kept.
CREATE TABLE bank_lines (
    reference text PRIMARY KEY CHECK (reference ~ '^[0-9A-Za-z._-]{1,64}$'),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency currency_code NOT NULL,
    codes text[] NOT NULL, -- whatever in its remark looks like a remittance code
    booked_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('suspense', 'matched', 'returned')),
    reason text NOT NULL, -- why it is where it is
    payment_number text REFERENCES house_payments,
    return_reference text CHECK (return_reference <> ''),
    imported_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CONSTRAINT bank_lines_matched_pay CHECK ((state = 'matched') = (payment_number IS NOT NULL)),
    CONSTRAINT bank_lines_one_per_payment UNIQUE (payment_number),
    CONSTRAINT bank_lines_returned_prove CHECK
        ((state = 'returned') = (return_reference IS NOT NULL))
);
CREATE INDEX bank_lines_in_suspense ON bank_lines (reference) WHERE state = 'suspense';

-- What was asked under which key, and what was answered.
CREATE TABLE house_requests (
    kind text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    answer jsonb NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT house_requests_once PRIMARY KEY (kind, idempotency_key)
);

CREATE TABLE audit_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor text NOT NULL,
    act text NOT NULL,
    subject text NOT NULL,
    reason text,
    detail jsonb NOT NULL DEFAULT '{}',
    acted_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER balance_entries_insert_only BEFORE UPDATE OR DELETE ON balance_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER balance_entries_never_emptied BEFORE TRUNCATE ON balance_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER audit_rows_insert_only BEFORE UPDATE OR DELETE ON audit_rows
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER audit_rows_never_emptied BEFORE TRUNCATE ON audit_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER bank_lines_never_deleted BEFORE DELETE ON bank_lines
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER bank_lines_never_emptied BEFORE TRUNCATE ON bank_lines
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'doorbuster_ledger')
       AND (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        GRANT SELECT, INSERT ON balance_entries, house_requests, audit_rows TO doorbuster_ledger;
        GRANT SELECT, INSERT, UPDATE ON house_payments, house_refunds, balances, bank_lines
            TO doorbuster_ledger;
    END IF;
END $$;
