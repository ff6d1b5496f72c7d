-- Refunds that their provider refused and a person paid out (docs/decisions/0034-refunds-by-hand.md).

ALTER TABLE refunds
    ADD COLUMN by_hand text, -- the number on the slip of whoever paid it out
    ADD COLUMN doubled_at timestamptz, -- and then its provider said that it had paid it too
    ADD CONSTRAINT refunds_by_hand_succeeded CHECK
        (by_hand IS NULL OR (by_hand <> '' AND state = 'succeeded')),
    ADD CONSTRAINT refunds_doubled_were_by_hand CHECK (doubled_at IS NULL OR by_hand IS NOT NULL);

-- What operators list: all of them, or those of one state, the newest first.
CREATE INDEX refunds_newest ON refunds (requested_at DESC, number DESC);
CREATE INDEX refunds_newest_of_state ON refunds (state, requested_at DESC, number DESC);
