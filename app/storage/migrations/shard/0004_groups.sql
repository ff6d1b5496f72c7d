-- Group-buy: the terms of a group sale, its groups, and the moves of their seats
-- (docs/GROUPS.md). A group is named within its bucket by the key of the order that
-- opened it, "<epoch>.<seq>", so that the script that opens it needs no random byte.

CREATE TYPE leader_policy AS ENUM ('hand_over', 'fail_group');
CREATE TYPE group_state AS ENUM ('open', 'formed', 'failing', 'failed', 'merged');

ALTER TABLE sales
    ADD COLUMN group_leader_leaves leader_policy,
    ADD COLUMN group_rescue_seconds integer CHECK (group_rescue_seconds >= 0),
    ADD CONSTRAINT sales_group_terms_whole CHECK
        ((group_size IS NULL) = (group_window_seconds IS NULL)
         AND (group_size IS NULL) = (group_leader_leaves IS NULL)
         AND (group_size IS NULL) = (group_rescue_seconds IS NULL));

-- Fixed at publish, as everything that the lease row copies.
ALTER TABLE bucket_leases
    ADD COLUMN group_window_seconds integer,
    ADD COLUMN group_leader_leaves leader_policy,
    ADD COLUMN group_rescue_seconds integer,
    ADD CONSTRAINT bucket_leases_group_terms CHECK
        ((kind = 'group') = (group_size IS NOT NULL)
         AND (group_size IS NULL) = (group_window_seconds IS NULL)
         AND (group_size IS NULL) = (group_leader_leaves IS NULL)
         AND (group_size IS NULL) = (group_rescue_seconds IS NULL));

DROP TABLE groups;
CREATE TABLE groups (
    sale integer NOT NULL,
    bucket smallint NOT NULL,
    id text NOT NULL CHECK (id ~ '^[0-9]{1,4}\.[0-9]{1,11}$'),
    size smallint NOT NULL CHECK (size BETWEEN 2 AND 100),
    seats_paid smallint NOT NULL DEFAULT 0,
    state group_state NOT NULL,
    -- The order whose leaving the leader's policy judges; the first one is the opener's.
    leader_epoch smallint NOT NULL,
    leader_seq bigint NOT NULL,
    leader_left boolean NOT NULL DEFAULT false,
    opened_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    shut_at timestamptz,      -- nobody may join from then on, although it is open (rescue)
    settled_at timestamptz,   -- when it left `open`
    released_at timestamptz,  -- when the move that lets go of its members was written
    merged_into text,
    CONSTRAINT groups_key PRIMARY KEY (sale, bucket, id),
    CONSTRAINT groups_seats CHECK (seats_paid BETWEEN 0 AND size),
    CONSTRAINT groups_formed_when_paid CHECK (state <> 'formed' OR seats_paid = size),
    CONSTRAINT groups_open_while_unpaid CHECK (state <> 'open' OR seats_paid < size),
    CONSTRAINT groups_settled CHECK ((state = 'open') = (settled_at IS NULL)),
    CONSTRAINT groups_merged CHECK ((state = 'merged') = (merged_into IS NOT NULL))
);
CREATE INDEX groups_by_deadline ON groups (expires_at) WHERE state = 'open';
CREATE INDEX groups_leaderless ON groups (sale, bucket) WHERE state = 'open' AND leader_left;
CREATE INDEX groups_failing ON groups (settled_at) WHERE state = 'failing';
CREATE INDEX groups_to_release ON groups (settled_at)
    WHERE state <> 'open' AND released_at IS NULL;
CREATE INDEX orders_of_group ON orders (sale, bucket, group_id) WHERE group_id IS NOT NULL;

-- A return names the group whose seat it frees. A seat move names a group and says how
-- its entry stands from then on, and what becomes of the members it lists.
ALTER TABLE bucket_moves
    ADD COLUMN group_id text,
    ADD COLUMN seats smallint,             -- NULL leaves them as they are
    ADD COLUMN group_expires_at timestamptz,
    ADD COLUMN members text[],
    ADD COLUMN members_group text,         -- where they belong from then on; NULL: nowhere
    ADD COLUMN orders_placed bigint,       -- of the bucket when the move was applied
    ADD CONSTRAINT bucket_moves_seat_names_its_group CHECK
        (kind <> 'seat' OR (group_id IS NOT NULL AND members IS NOT NULL
                            AND group_expires_at IS NOT NULL));
