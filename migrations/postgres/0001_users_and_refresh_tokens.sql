-- Users, and families of refresh tokens. Run by src/store/postgres/migrate.rs; the queries on it are
-- in user.rs and token.rs beside that. Its twin: ../sqlite/0001_users_and_refresh_tokens.sql.
--
-- Times are microseconds since the Unix epoch: they come from the application's clock, which tests
-- move, and a number keeps anyone from comparing them with the database's own now().
-- To read one: to_timestamp(created_at / 1e6).
-- Hashes are SHA-256 of a token's text; the tokens themselves are nowhere.

CREATE TABLE tower_warden.users (
    id             text    PRIMARY KEY,
    email          text    NOT NULL UNIQUE,
    password_hash  text    NOT NULL,
    role           text    NOT NULL,
    plan           text,
    email_verified boolean NOT NULL,
    created_at     bigint  NOT NULL
);

-- Who must not all be demoted.
CREATE INDEX users_admins ON tower_warden.users (id) WHERE role = 'admin' AND email_verified;

CREATE TABLE tower_warden.verification_tokens (
    user_id    text   PRIMARY KEY REFERENCES tower_warden.users (id) ON DELETE CASCADE,
    hash       bytea  NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX verification_tokens_expires_at ON tower_warden.verification_tokens (expires_at);

-- user_id refers to nothing: users may be kept elsewhere.
CREATE TABLE tower_warden.families (
    id             text   PRIMARY KEY,
    user_id        text   NOT NULL,
    created_at     bigint NOT NULL,
    last_used_at   bigint NOT NULL,
    expires_at     bigint,
    revoked_at     bigint,
    revoked_reason text,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);

CREATE INDEX families_user_id ON tower_warden.families (user_id);

CREATE TABLE tower_warden.refresh_tokens (
    hash          bytea  PRIMARY KEY CHECK (octet_length(hash) = 32),
    family_id     text   NOT NULL REFERENCES tower_warden.families (id) ON DELETE CASCADE,
    generation    bigint NOT NULL,
    issued_at     bigint NOT NULL,
    expires_at    bigint NOT NULL,
    superseded_at bigint,
    UNIQUE (family_id, generation)
);

-- A family has one live token, whatever the code does.
CREATE UNIQUE INDEX refresh_tokens_one_live
    ON tower_warden.refresh_tokens (family_id) WHERE superseded_at IS NULL;

-- The live token is the last to end: by it the clean-up finds families that are over.
CREATE INDEX refresh_tokens_live_expires_at
    ON tower_warden.refresh_tokens (expires_at) WHERE superseded_at IS NULL;
