-- What follows a payment: the policy of a sale, delivery details, review, shipping,
-- after-sale cases, notes, invoice wishes (docs/FULFILMENT.md). The table of orders, which
-- every flush writes, gets no wider: each of these rows exists only once it is needed.

CREATE TYPE review_rule AS ENUM ('none', 'every', 'from_amount');
CREATE TYPE review_state AS ENUM ('waiting', 'held', 'approved', 'rejected');
CREATE TYPE after_sale_kind AS ENUM ('refund', 'return_and_refund', 'exchange');
CREATE TYPE after_sale_state AS ENUM
    ('requested', 'approved', 'refused', 'withdrawn', 'goods_sent', 'resent', 'settled');
CREATE TYPE after_sale_reason AS ENUM ('quality', 'damaged', 'wrong_goods', 'not_wanted', 'other');
CREATE TYPE invoice_kind AS ENUM ('personal', 'company');

-- Policy (home shard) --------------------------------------------------------

ALTER TABLE sales
    ADD COLUMN refund_window_seconds integer
        CHECK (refund_window_seconds BETWEEN 1 AND 31536000), -- from the payment on
    ADD COLUMN review review_rule NOT NULL DEFAULT 'none',
    ADD COLUMN review_from_minor bigint CHECK (review_from_minor BETWEEN 1 AND 1000000000000000),
    ADD COLUMN confirm_after_seconds integer NOT NULL DEFAULT 864000 -- from the shipping on
        CHECK (confirm_after_seconds BETWEEN 1 AND 31536000),
    ADD CONSTRAINT sales_refund_window CHECK
        ((refundable = 'window') = (refund_window_seconds IS NOT NULL)),
    ADD CONSTRAINT sales_review_rule CHECK
        ((review = 'from_amount') = (review_from_minor IS NOT NULL));

-- Orders (bucket's shard) ----------------------------------------------------

ALTER TABLE orders DROP COLUMN delivery;

-- Personal data: each field is nonce, ciphertext and tag of AES-256-GCM; the order's key
-- and the field's name are authenticated with it, so no value can change places.
CREATE TABLE order_deliveries (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    key_id text NOT NULL CHECK (length(key_id) BETWEEN 1 AND 64),
    receiver bytea NOT NULL,
    mobile bytea NOT NULL,
    address bytea NOT NULL,
    mobile_index bytea NOT NULL CHECK (length(mobile_index) = 32), -- keyed hash, for search
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_deliveries_key PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT order_deliveries_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT order_deliveries_sealed CHECK
        (length(receiver) > 28 AND length(mobile) > 28 AND length(address) > 28)
);
CREATE INDEX order_deliveries_by_mobile ON order_deliveries (mobile_index);
CREATE INDEX order_deliveries_by_key ON order_deliveries (key_id);

CREATE TABLE order_invoices (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    kind invoice_kind NOT NULL,
    key_id text NOT NULL CHECK (length(key_id) BETWEEN 1 AND 64),
    title bytea NOT NULL CHECK (length(title) > 28),
    tax_number bytea CHECK (length(tax_number) > 28),
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_invoices_key PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT order_invoices_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT order_invoices_company_is_taxed CHECK
        ((kind = 'company') = (tax_number IS NOT NULL))
);
CREATE INDEX order_invoices_by_key ON order_invoices (key_id);

-- An order that needs a review and has no row here is waiting for one.
CREATE TABLE order_reviews (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    state review_state NOT NULL CHECK (state <> 'waiting'),
    reason text CHECK (length(reason) BETWEEN 1 AND 256),
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_reviews_key PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT order_reviews_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT order_reviews_says_why CHECK (state = 'approved' OR reason IS NOT NULL)
);

CREATE TABLE order_shipments (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    carrier text NOT NULL CHECK (length(carrier) BETWEEN 1 AND 64),
    tracking_number text NOT NULL CHECK (length(tracking_number) BETWEEN 1 AND 64),
    shipped_at timestamptz NOT NULL DEFAULT now(),
    confirm_by timestamptz NOT NULL,
    received_at timestamptz,
    CONSTRAINT order_shipments_key PRIMARY KEY (sale, bucket, epoch, seq),
    CONSTRAINT order_shipments_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT order_shipments_confirm_later CHECK (confirm_by > shipped_at)
);
CREATE INDEX order_shipments_to_confirm ON order_shipments (confirm_by)
    WHERE received_at IS NULL;

CREATE TABLE after_sales (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    ordinal smallint NOT NULL CHECK (ordinal BETWEEN 1 AND 99),
    kind after_sale_kind NOT NULL,
    state after_sale_state NOT NULL,
    reason after_sale_reason NOT NULL,
    quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    amount_minor money_minor NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    return_carrier text CHECK (length(return_carrier) BETWEEN 1 AND 64),
    return_number text CHECK (length(return_number) BETWEEN 1 AND 64),
    resent_carrier text CHECK (length(resent_carrier) BETWEEN 1 AND 64),
    resent_number text CHECK (length(resent_number) BETWEEN 1 AND 64),
    refund_number text REFERENCES refunds,
    asked_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT after_sales_key PRIMARY KEY (sale, bucket, epoch, seq, ordinal),
    CONSTRAINT after_sales_one_per_idempotency_key
        UNIQUE (sale, bucket, epoch, seq, idempotency_key),
    CONSTRAINT after_sales_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders,
    CONSTRAINT after_sales_money CHECK ((kind = 'exchange') = (amount_minor = 0)),
    CONSTRAINT after_sales_settled_with_a_refund CHECK
        ((refund_number IS NOT NULL) = (state = 'settled' AND kind <> 'exchange')),
    CONSTRAINT after_sales_sent_with_a_number CHECK
        (state <> 'goods_sent' OR return_number IS NOT NULL),
    CONSTRAINT after_sales_resent_with_a_number CHECK
        (state <> 'resent' OR resent_number IS NOT NULL)
);
CREATE UNIQUE INDEX after_sales_one_open ON after_sales (sale, bucket, epoch, seq)
    WHERE state IN ('requested', 'approved', 'goods_sent', 'resent');

-- Written by operators about an order; never told to its shopper.
CREATE TABLE order_notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    epoch smallint NOT NULL,
    seq bigint NOT NULL,
    text text NOT NULL CHECK (length(text) BETWEEN 1 AND 1000),
    written_by text NOT NULL,
    idempotency_key text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_notes_one_per_key UNIQUE (sale, bucket, epoch, seq, idempotency_key),
    CONSTRAINT order_notes_of_order FOREIGN KEY (sale, bucket, epoch, seq) REFERENCES orders
);
