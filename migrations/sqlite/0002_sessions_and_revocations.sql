-- What is known of a session, how all sessions of a user end at once, and what processes tell one
-- another to be revoked. Run by src/store/sqlite/migrate.rs; the queries on it are in src/store/sql. Its
-- twin: ../postgres/0002_sessions_and_revocations.sql. It only adds: a process of the schema before
-- still runs.

ALTER TABLE tower_warden_families ADD COLUMN amr TEXT; -- separated by spaces
ALTER TABLE tower_warden_families ADD COLUMN ip TEXT;
ALTER TABLE tower_warden_families ADD COLUMN user_agent TEXT;
ALTER TABLE tower_warden_families ADD COLUMN label TEXT;
ALTER TABLE tower_warden_families ADD COLUMN epoch INTEGER; -- of user_sessions when it was opened; null: by an older process
ALTER TABLE tower_warden_families ADD COLUMN sealed BLOB; -- the live token, sealed under its parent
ALTER TABLE tower_warden_families ADD COLUMN sealed_generation INTEGER; -- of that parent
ALTER TABLE tower_warden_families ADD COLUMN sealed_until INTEGER;

-- One row per user who ever had a session: the count of how often they were all ended. A family of an
-- earlier epoch is revoked. user_id refers to nothing, as above.
CREATE TABLE tower_warden_user_sessions (
    user_id   TEXT    NOT NULL PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    ended_at  INTEGER,           -- when the epoch began: ends families that have none
    marked_at INTEGER            -- of the last revocation of everything that was issued
) STRICT;

-- Kept for as long as an access token lives. kind: session (subject: a family's id), user (value:
-- tokens issued by then, in microseconds), role (value: the role), account.
CREATE TABLE tower_warden_revocations (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    value   TEXT,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX tower_warden_revocations_at ON tower_warden_revocations (at);
