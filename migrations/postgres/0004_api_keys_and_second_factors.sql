-- API keys, second factors, and logins that wait for one. Run by src/store/postgres/migrate.rs; the
-- queries on it are in src/store/sql. Its twin: ../sqlite/0004_api_keys_and_second_factors.sql.
--
-- Times are microseconds since the Unix epoch, hashes are SHA-256, as in the first file.

-- user_id refers to nothing: who presents the key of an account that was deleted is told that it is
-- revoked.
CREATE TABLE tower_warden.api_keys (
    id           text   PRIMARY KEY,
    hash         bytea  NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    user_id      text   NOT NULL,
    name         text   NOT NULL,
    prefix       text   NOT NULL,
    role         text   NOT NULL,
    created_at   bigint NOT NULL,
    expires_at   bigint,
    last_used_at bigint,
    revoked_at   bigint
);

CREATE INDEX api_keys_user_id ON tower_warden.api_keys (user_id) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_revoked_at ON tower_warden.api_keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- The secret is sealed with a key that is not in the database. on_since is null while it is to be
-- confirmed. Of last_step and all steps before it the codes were used.
CREATE TABLE tower_warden.second_factors (
    user_id   text   PRIMARY KEY REFERENCES tower_warden.users (id) ON DELETE CASCADE,
    secret    bytea  NOT NULL,
    on_since  bigint,
    last_step bigint,
    CHECK ((on_since IS NULL) = (last_step IS NULL))
);

CREATE TABLE tower_warden.recovery_codes (
    user_id text  NOT NULL REFERENCES tower_warden.second_factors (user_id) ON DELETE CASCADE,
    hash    bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (user_id, hash)
);

CREATE TABLE tower_warden.pending_logins (
    hash       bytea  PRIMARY KEY CHECK (octet_length(hash) = 32),
    user_id    text   NOT NULL REFERENCES tower_warden.users (id) ON DELETE CASCADE,
    tries      bigint NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX pending_logins_user_id ON tower_warden.pending_logins (user_id);
CREATE INDEX pending_logins_expires_at ON tower_warden.pending_logins (expires_at);
