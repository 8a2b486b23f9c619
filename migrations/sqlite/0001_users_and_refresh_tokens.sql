-- Users, and families of refresh tokens. Run by src/store/sqlite/migrate.rs; the queries on it are
-- in user.rs and token.rs beside that. Its twin: ../postgres/0001_users_and_refresh_tokens.sql.
--
-- Times are microseconds since the Unix epoch: they come from the application's clock, which tests
-- move. To read one: datetime(created_at / 1000000, 'unixepoch').
-- Hashes are SHA-256 of a token's text; the tokens themselves are nowhere.

CREATE TABLE tower_warden_users (
    id             TEXT    NOT NULL PRIMARY KEY,
    email          TEXT    NOT NULL UNIQUE,
    password_hash  TEXT    NOT NULL,
    role           TEXT    NOT NULL,
    plan           TEXT,
    email_verified INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

-- Who must not all be demoted.
CREATE INDEX tower_warden_users_admins
    ON tower_warden_users (id) WHERE role = 'admin' AND email_verified;

CREATE TABLE tower_warden_verification_tokens (
    user_id    TEXT    NOT NULL PRIMARY KEY REFERENCES tower_warden_users (id) ON DELETE CASCADE,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX tower_warden_verification_tokens_expires_at
    ON tower_warden_verification_tokens (expires_at);

-- user_id refers to nothing: users may be kept elsewhere.
CREATE TABLE tower_warden_families (
    id             TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    last_used_at   INTEGER NOT NULL,
    expires_at     INTEGER,
    revoked_at     INTEGER,
    revoked_reason TEXT,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
) STRICT;

CREATE INDEX tower_warden_families_user_id ON tower_warden_families (user_id);

CREATE TABLE tower_warden_refresh_tokens (
    hash          BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    family_id     TEXT    NOT NULL REFERENCES tower_warden_families (id) ON DELETE CASCADE,
    generation    INTEGER NOT NULL,
    issued_at     INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    superseded_at INTEGER,
    UNIQUE (family_id, generation)
) STRICT, WITHOUT ROWID;

-- A family has one live token, whatever the code does.
CREATE UNIQUE INDEX tower_warden_refresh_tokens_one_live
    ON tower_warden_refresh_tokens (family_id) WHERE superseded_at IS NULL;

-- The live token is the last to end: by it the clean-up finds families that are over.
CREATE INDEX tower_warden_refresh_tokens_live_expires_at
    ON tower_warden_refresh_tokens (expires_at) WHERE superseded_at IS NULL;
