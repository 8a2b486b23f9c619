-- API keys, second factors, and logins that wait for one. Run by src/store/sqlite/migrate.rs; the
-- queries on it are in src/store/sql. Its twin: ../postgres/0004_api_keys_and_second_factors.sql.
--
-- Times are microseconds since the Unix epoch, hashes are SHA-256, as in the first file.

-- user_id refers to nothing: who presents the key of an account that was deleted is told that it is
-- revoked.
CREATE TABLE tower_warden_api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    user_id      TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;

CREATE INDEX tower_warden_api_keys_user_id
    ON tower_warden_api_keys (user_id) WHERE revoked_at IS NULL;
CREATE INDEX tower_warden_api_keys_revoked_at
    ON tower_warden_api_keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- The secret is sealed with a key that is not in the database. on_since is null while it is to be
-- confirmed. Of last_step and all steps before it the codes were used.
CREATE TABLE tower_warden_second_factors (
    user_id   TEXT    NOT NULL PRIMARY KEY REFERENCES tower_warden_users (id) ON DELETE CASCADE,
    secret    BLOB    NOT NULL,
    on_since  INTEGER,
    last_step INTEGER,
    CHECK ((on_since IS NULL) = (last_step IS NULL))
) STRICT;

CREATE TABLE tower_warden_recovery_codes (
    user_id TEXT NOT NULL REFERENCES tower_warden_second_factors (user_id) ON DELETE CASCADE,
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (user_id, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE tower_warden_pending_logins (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    user_id    TEXT    NOT NULL REFERENCES tower_warden_users (id) ON DELETE CASCADE,
    tries      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tower_warden_pending_logins_user_id ON tower_warden_pending_logins (user_id);
CREATE INDEX tower_warden_pending_logins_expires_at ON tower_warden_pending_logins (expires_at);
