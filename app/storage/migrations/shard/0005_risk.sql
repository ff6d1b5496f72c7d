-- Risk rules before a payment attempt is opened (docs/PAYMENTS.md §4.9). A shopper, a
-- device and an address are known here by a keyed pseudonym alone, never in clear.

CREATE TYPE risk_subject AS ENUM ('shopper', 'device', 'address');
CREATE TYPE block_effect AS ENUM ('refuse', 'hold');
CREATE TYPE hold_state AS ENUM ('held', 'released', 'rejected');

-- One start of a payment by one subject, on the shard that its pseudonym falls to.
CREATE TABLE risk_starts (
    kind risk_subject NOT NULL,
    pseudonym bytea NOT NULL CHECK (length(pseudonym) = 16),
    start bytea NOT NULL CHECK (length(start) = 16), -- hash of order and key: a repeat is no other
    started_at timestamptz NOT NULL,
    PRIMARY KEY (kind, pseudonym, start)
);
CREATE INDEX risk_starts_oldest ON risk_starts (started_at);

-- The same rows on every shard, so that a start asks its order's shard alone.
CREATE TABLE risk_blocks (
    kind risk_subject NOT NULL,
    pseudonym bytea NOT NULL CHECK (length(pseudonym) = 16),
    effect block_effect NOT NULL,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 256),
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL,
    PRIMARY KEY (kind, pseudonym)
);

-- Orders whose payment waits for an operator, or waited (the order's shard).
CREATE TABLE risk_holds (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    state hold_state NOT NULL,
    rule text NOT NULL,
    held_at timestamptz NOT NULL,
    decided_by text,
    decided_why text,
    decided_at timestamptz,
    PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT risk_holds_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT risk_holds_decided CHECK
        ((state = 'held') = (decided_by IS NULL)
         AND (decided_by IS NULL) = (decided_why IS NULL)
         AND (decided_by IS NULL) = (decided_at IS NULL))
);
CREATE INDEX risk_holds_waiting ON risk_holds (held_at) WHERE state = 'held';

-- Which rules refused an order's payment and how often: one row per rule, however many tries.
CREATE TABLE risk_refusals (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    rule text NOT NULL,
    tries bigint NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (sale, bucket, epoch, seq, rule),
    CONSTRAINT risk_refusals_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders
);
