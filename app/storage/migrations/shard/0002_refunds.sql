-- Refunds that an operator asks for: what was asked under which key, in whose words.

ALTER TABLE refunds
    ADD COLUMN fingerprint bytea CHECK (length(fingerprint) = 8),
    ADD COLUMN note text CHECK (length(note) BETWEEN 1 AND 80), -- told to the provider as it is
    ADD CONSTRAINT refunds_key_has_content CHECK
        ((idempotency_key IS NULL) = (fingerprint IS NULL));
CREATE UNIQUE INDEX refunds_one_per_key ON refunds (sale, bucket, epoch, seq, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
