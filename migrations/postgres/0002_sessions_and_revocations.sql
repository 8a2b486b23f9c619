-- What is known of a session, how all sessions of a user end at once, and what servers tell one another
-- to be revoked. Run by src/store/postgres/migrate.rs; the queries on it are in src/store/sql. Its twin:
-- ../sqlite/0002_sessions_and_revocations.sql. It only adds: a server of the schema before still runs.

ALTER TABLE tower_warden.families
    ADD COLUMN amr               text,   -- separated by spaces
    ADD COLUMN ip                text,
    ADD COLUMN user_agent        text,
    ADD COLUMN label             text,
    ADD COLUMN epoch             bigint, -- of user_sessions when it was opened; null: by an older server
    ADD COLUMN sealed            bytea,  -- the live token, sealed under its parent
    ADD COLUMN sealed_generation bigint, -- of that parent
    ADD COLUMN sealed_until      bigint;

-- One row per user who ever had a session: the lock of all of them, and the count of how often they
-- were all ended. A family of an earlier epoch is revoked. user_id refers to nothing, as above.
CREATE TABLE tower_warden.user_sessions (
    user_id   text   PRIMARY KEY,
    epoch     bigint NOT NULL,
    ended_at  bigint,           -- when the epoch began: ends families that have none
    marked_at bigint            -- of the last revocation of everything that was issued
);

-- Kept for as long as an access token lives. kind: session (subject: a family's id), user (value:
-- tokens issued by then, in microseconds), role (value: the role), account.
CREATE TABLE tower_warden.revocations (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text   NOT NULL,
    subject text   NOT NULL,
    value   text,
    at      bigint NOT NULL
);

CREATE INDEX revocations_at ON tower_warden.revocations (at);
