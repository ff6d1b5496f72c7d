-- One shard: sales at home here, leases of buckets that live here, and everything
-- that belongs to an order. docs/HOT_PATH.md calls the first group "home shard", the
-- second "bucket's shard"; every shard has all tables and may play both parts.
-- The first shard of the map alone also uses the directory.

CREATE DOMAIN money_minor AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN currency_code AS text CHECK (VALUE ~ '^[A-Z]{3}$');

CREATE TYPE sale_kind AS ENUM ('seckill', 'group', 'ordinary');
CREATE TYPE sale_state AS ENUM ('draft', 'published', 'paused', 'closed');
CREATE TYPE bucket_state AS ENUM ('open', 'draining', 'closed');
CREATE TYPE grant_state AS ENUM ('issued', 'applied', 'refused');
CREATE TYPE move_kind AS ENUM ('return', 'top_up', 'withdrawal', 'seat');
CREATE TYPE move_state AS ENUM ('asked', 'debited', 'credited', 'done', 'superseded');
CREATE TYPE order_state AS ENUM
    ('pending', 'closing', 'paid', 'shipped', 'completed', 'closed', 'refunded');
CREATE TYPE order_reason AS ENUM
    ('expired', 'cancelled_by_shopper', 'cancelled_by_merchant', 'payment_failed',
     'group_failed', 'review_rejected');
CREATE TYPE attempt_state AS ENUM
    ('created', 'open', 'not_sent', 'paid', 'closed', 'paid_late');
CREATE TYPE refund_state AS ENUM ('requested', 'sent', 'unknown', 'succeeded', 'abnormal');
CREATE TYPE letter_kind AS ENUM ('order', 'outbox', 'callback', 'ledger');

-- Directory (first shard of the map) ---------------------------------------

CREATE TABLE shard_identity (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    deployment text NOT NULL,
    shard smallint NOT NULL CHECK (shard >= 0)
);

CREATE TABLE shard_map (
    first_sale integer PRIMARY KEY CHECK (first_sale >= 1),
    shards smallint NOT NULL CHECK (shards BETWEEN 1 AND 1024)
);

CREATE SEQUENCE sale_numbers AS integer MINVALUE 1 MAXVALUE 4194303;

CREATE TABLE sale_directory (
    id text PRIMARY KEY CHECK (id ~ '^[a-z0-9-]{1,40}$'),
    sale integer NOT NULL CONSTRAINT sale_directory_one_id_per_number UNIQUE,
    home_shard smallint NOT NULL,
    idempotency_key text NOT NULL CONSTRAINT sale_directory_one_per_key UNIQUE,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Sales (home shard) ---------------------------------------------------------

CREATE TABLE sales (
    sale integer PRIMARY KEY,
    id text NOT NULL CONSTRAINT sales_one_per_id UNIQUE,
    kind sale_kind NOT NULL,
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 120),
    sku text NOT NULL CHECK (length(sku) BETWEEN 1 AND 64),
    merchant text NOT NULL CHECK (length(merchant) <= 64),
    price_minor money_minor NOT NULL CHECK (price_minor BETWEEN 1 AND 1000000000000),
    currency currency_code NOT NULL,
    stock_total bigint NOT NULL CHECK (stock_total >= 0),
    pool bigint NOT NULL CONSTRAINT sales_pool_within_stock CHECK (pool BETWEEN 0 AND stock_total),
    limit_per_shopper integer NOT NULL CHECK (limit_per_shopper BETWEEN 1 AND 1000),
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    pay_within_seconds integer NOT NULL CHECK (pay_within_seconds BETWEEN 1 AND 86400),
    buckets smallint NOT NULL CHECK (buckets BETWEEN 1 AND 64),
    group_size smallint CHECK (group_size BETWEEN 2 AND 100),
    group_window_seconds integer CHECK (group_window_seconds > 0),
    refundable text NOT NULL DEFAULT 'none' CHECK (refundable IN ('none', 'before_shipping', 'window')),
    state sale_state NOT NULL,
    state_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    leased_at timestamptz, -- when every bucket had its lease row
    closed_at timestamptz,
    CONSTRAINT sales_window CHECK (opens_at < closes_at),
    CONSTRAINT sales_group_terms CHECK ((kind = 'group') = (group_size IS NOT NULL)),
    CONSTRAINT sales_group_one_bucket CHECK (kind <> 'group' OR buckets = 1)
);

CREATE INDEX sales_to_lease ON sales (sale) WHERE state <> 'draft' AND leased_at IS NULL;
CREATE INDEX sales_to_grant ON sales (sale) WHERE pool > 0 AND state IN ('published', 'paused');

CREATE TABLE grants (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale integer NOT NULL REFERENCES sales,
    bucket smallint NOT NULL,
    units bigint NOT NULL CHECK (units > 0),
    state grant_state NOT NULL DEFAULT 'issued',
    issued_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz
);
CREATE INDEX grants_issued ON grants (sale, bucket) WHERE state = 'issued';

CREATE TABLE pool_credits (
    -- The move (or refused grant) whose units came back; credited once by id.
    source text NOT NULL CHECK (source IN ('move', 'grant')),
    source_id bigint NOT NULL,
    sale integer NOT NULL REFERENCES sales,
    bucket smallint NOT NULL,
    units bigint NOT NULL CHECK (units > 0),
    credited_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pool_credits_once PRIMARY KEY (sale, bucket, source, source_id)
);

-- A write to a sale that adds (restock), remembered by its key.
CREATE TABLE sale_writes (
    sale integer NOT NULL REFERENCES sales,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    result jsonb NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sale_writes_once PRIMARY KEY (sale, idempotency_key)
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

-- Buckets (bucket's shard) ---------------------------------------------------

CREATE TABLE bucket_leases (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL CHECK (epoch BETWEEN 0 AND 4095),
    state bucket_state NOT NULL,
    granted bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    stream_ms bigint NOT NULL DEFAULT 0,
    stream_seq bigint NOT NULL DEFAULT 0,
    orders_seen bigint NOT NULL DEFAULT 0,
    units_flushed bigint NOT NULL DEFAULT 0,
    units_released bigint NOT NULL DEFAULT 0,
    recover_reason text,
    node text,
    run_id text,
    master_replid text,
    incarnation text,
    script_sha text,
    epoch_opened_at timestamptz,
    -- Fixed at publish, so that flush, rebuild and ticket need no other shard.
    home_shard smallint NOT NULL,
    sale_id text NOT NULL,
    kind sale_kind NOT NULL,
    sku text NOT NULL,
    merchant text NOT NULL,
    price_minor money_minor NOT NULL,
    currency currency_code NOT NULL,
    limit_per_shopper integer NOT NULL,
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    pay_within_seconds integer NOT NULL,
    group_size smallint,
    PRIMARY KEY (sale, bucket),
    CONSTRAINT bucket_leases_never_oversell CHECK (0 <= reserved AND reserved <= granted),
    CONSTRAINT bucket_leases_counts CHECK
        (orders_seen >= 0 AND units_flushed >= 0 AND units_released >= 0)
) WITH (fillfactor = 50);
CREATE INDEX bucket_leases_live ON bucket_leases (sale) WHERE state <> 'closed';

CREATE TABLE applied_grants (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    grant_id bigint NOT NULL,
    units bigint NOT NULL,
    refused boolean NOT NULL DEFAULT false,
    applied_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT applied_grants_once PRIMARY KEY (sale, bucket, grant_id)
);

CREATE TABLE bucket_moves (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    kind move_kind NOT NULL,
    -- Units asked for while 'asked' (withdrawal), units moved from then on.
    units bigint NOT NULL CHECK (units >= 0),
    shopper text,
    order_epoch smallint,
    order_seq bigint,
    key_hash bytea,          -- a dead letter's key, to be forgotten or corrected
    owner_epoch smallint,    -- for key_taken: the order that owns the key
    owner_seq bigint,
    epoch smallint NOT NULL, -- of the lease row at the moment of writing
    state move_state NOT NULL DEFAULT 'asked',
    asked_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CONSTRAINT bucket_moves_one_return_per_order UNIQUE (sale, bucket, order_epoch, order_seq, kind),
    CONSTRAINT bucket_moves_return_names_its_order CHECK
        ((kind = 'return') = (order_epoch IS NOT NULL AND order_seq IS NOT NULL
                              AND shopper IS NOT NULL))
);
CREATE INDEX bucket_moves_unsettled ON bucket_moves (sale, bucket, id)
    WHERE state IN ('asked', 'debited');

-- Orders (bucket's shard) ----------------------------------------------------

CREATE TABLE orders (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    shopper text NOT NULL,
    sku text NOT NULL,
    quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    units_held integer NOT NULL,
    price_minor money_minor NOT NULL,
    total_minor money_minor NOT NULL,
    refunded_minor money_minor NOT NULL DEFAULT 0,
    currency currency_code NOT NULL,
    merchant text NOT NULL,
    state order_state NOT NULL,
    reason order_reason,
    placed_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    pay_by timestamptz NOT NULL,
    paid_at timestamptz,
    closed_at timestamptz,
    key_hash bytea NOT NULL CHECK (length(key_hash) = 16),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 8),
    reference text,
    group_id text,
    delivery bytea,
    last_event smallint NOT NULL DEFAULT 1, -- number of its newest row in order_events
    CONSTRAINT orders_key PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT orders_one_per_placement_key UNIQUE (sale, shopper, key_hash),
    CONSTRAINT orders_total CHECK (total_minor = price_minor * quantity),
    CONSTRAINT orders_refund_within_total CHECK (refunded_minor <= total_minor),
    CONSTRAINT orders_units_held CHECK
        (units_held = quantity AND state IN ('pending', 'closing', 'paid', 'shipped', 'completed')
         OR units_held = 0 AND state IN ('closed', 'refunded')),
    CONSTRAINT orders_reason CHECK ((state IN ('closing', 'closed')) <= (reason IS NOT NULL)),
    CONSTRAINT orders_paid_at CHECK
        ((state IN ('paid', 'shipped', 'completed', 'refunded')) = (paid_at IS NOT NULL)),
    CONSTRAINT orders_closed_at CHECK ((state = 'closed') = (closed_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX orders_by_deadline ON orders (pay_by) WHERE state = 'pending';
CREATE INDEX orders_closing ON orders (sale, bucket) WHERE state = 'closing';
CREATE INDEX orders_by_shopper ON orders (shopper, placed_at);

CREATE TABLE order_events (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    number smallint NOT NULL CHECK (number >= 1),
    event text NOT NULL,
    state order_state NOT NULL,
    actor text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_events_key PRIMARY KEY (sale, bucket, epoch, seq, number)
);

CREATE TABLE groups (
    id text PRIMARY KEY,
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    size smallint NOT NULL,
    seats_paid smallint NOT NULL DEFAULT 0,
    state text NOT NULL CHECK (state IN ('open', 'formed', 'failing', 'failed', 'merged')),
    leader text NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT groups_seats CHECK (seats_paid BETWEEN 0 AND size)
);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    business_id text NOT NULL,
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    CONSTRAINT outbox_one_fact UNIQUE (kind, business_id)
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE done_at IS NULL;

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind letter_kind NOT NULL,
    reason text NOT NULL,
    -- For an order: where it stood; its ticket is answered `rejected` for ever. A whole
    -- entry that nobody could read has no seq: nobody knows which orders it held.
    sale integer,
    bucket smallint,
    epoch smallint,
    seq bigint,
    shopper text,
    units bigint,
    key_hash bytea,
    raw bytea NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    parked_at timestamptz NOT NULL DEFAULT now(),
    dropped_at timestamptz,
    dropped_by text,
    dropped_why text,
    CONSTRAINT dead_letters_one_per_order UNIQUE (sale, bucket, epoch, seq),
    CONSTRAINT dead_letters_order_named CHECK
        (kind <> 'order' OR (sale IS NOT NULL AND bucket IS NOT NULL AND epoch IS NOT NULL
                             AND (seq IS NOT NULL OR reason = 'unreadable')))
);
CREATE INDEX dead_letters_waiting ON dead_letters (id) WHERE dropped_at IS NULL;

-- Payments (bucket's shard) --------------------------------------------------

CREATE TABLE payment_attempts (
    number text PRIMARY KEY CHECK (number ~ '^[0-9A-Z]{28}$'),
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    ordinal smallint NOT NULL CHECK (ordinal BETWEEN 1 AND 99),
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    provider text NOT NULL,
    account text NOT NULL DEFAULT '',
    product text NOT NULL,
    amount_minor money_minor NOT NULL CHECK (amount_minor > 0),
    currency currency_code NOT NULL,
    state attempt_state NOT NULL,
    action jsonb,
    provider_number text,
    captured_minor money_minor NOT NULL DEFAULT 0,
    refunded_minor money_minor NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    next_query_at timestamptz,
    queries integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CONSTRAINT payment_attempts_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT payment_attempts_one_per_ordinal UNIQUE (sale, bucket, epoch, seq, ordinal),
    CONSTRAINT payment_attempts_one_per_key UNIQUE (sale, bucket, epoch, seq, idempotency_key),
    CONSTRAINT payment_attempts_captured CHECK
        ((state IN ('paid', 'paid_late')) = (captured_minor > 0)),
    CONSTRAINT payment_attempts_refund_within_capture CHECK (refunded_minor <= captured_minor)
);
CREATE UNIQUE INDEX payment_attempts_one_live ON payment_attempts (sale, bucket, epoch, seq)
    WHERE state IN ('created', 'open');
CREATE UNIQUE INDEX payment_attempts_one_paid ON payment_attempts (sale, bucket, epoch, seq)
    WHERE state = 'paid';
CREATE UNIQUE INDEX payment_attempts_one_per_capture ON payment_attempts (provider, account, provider_number)
    WHERE state IN ('paid', 'paid_late');
CREATE INDEX payment_attempts_to_query ON payment_attempts (next_query_at)
    WHERE state IN ('created', 'open');

-- Every verified message of a provider, raw, before it has any effect.
CREATE TABLE provider_events (
    provider text NOT NULL,
    account text NOT NULL DEFAULT '',
    notification_id text NOT NULL,
    attempt_number text NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    headers jsonb NOT NULL,
    raw bytea NOT NULL,
    event_at timestamptz,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT provider_events_once PRIMARY KEY (provider, account, notification_id)
);
CREATE INDEX provider_events_of_attempt ON provider_events (attempt_number);

CREATE TABLE refunds (
    number text PRIMARY KEY CHECK (number ~ '^[0-9A-Za-z]{8,64}$'),
    attempt_number text NOT NULL REFERENCES payment_attempts,
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    reason text NOT NULL,
    late boolean NOT NULL DEFAULT false,
    amount_minor money_minor NOT NULL CHECK (amount_minor > 0),
    currency currency_code NOT NULL,
    state refund_state NOT NULL,
    provider_number text,
    idempotency_key text,
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    requested_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CONSTRAINT refunds_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders
);
CREATE UNIQUE INDEX refunds_one_per_late_payment ON refunds (attempt_number) WHERE late;
CREATE INDEX refunds_to_send ON refunds (next_try_at) WHERE state IN ('requested', 'sent', 'unknown');

-- History is only ever added to ----------------------------------------------

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is insert-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER order_events_insert_only BEFORE UPDATE OR DELETE ON order_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_rows_insert_only BEFORE UPDATE OR DELETE ON audit_rows
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER provider_events_insert_only BEFORE UPDATE OR DELETE ON provider_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
