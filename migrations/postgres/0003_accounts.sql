-- Accounts for life: suspension, forgotten passwords, changed addresses. Run by
-- src/store/postgres/migrate.rs; the queries on it are in src/store/sql/user.rs. Its twin:
-- ../sqlite/0003_accounts.sql. An older server still runs on it.

ALTER TABLE tower_warden.users ADD COLUMN suspended_at bigint;

-- One more each time that all sessions end at once: a login that began before opens none.
ALTER TABLE tower_warden.users ADD COLUMN epoch bigint NOT NULL DEFAULT 0;

CREATE INDEX users_newest ON tower_warden.users (created_at, id);

-- A token that was used or ended stays for a while, past its time: a new one may have to wait.
CREATE TABLE tower_warden.reset_tokens (
    user_id    text   PRIMARY KEY REFERENCES tower_warden.users (id) ON DELETE CASCADE,
    hash       bytea  NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX reset_tokens_expires_at ON tower_warden.reset_tokens (expires_at);

CREATE TABLE tower_warden.email_changes (
    user_id    text   PRIMARY KEY REFERENCES tower_warden.users (id) ON DELETE CASCADE,
    hash       bytea  NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- The address that is wanted. Many may want the same.
    email      text   NOT NULL
);

CREATE INDEX email_changes_expires_at ON tower_warden.email_changes (expires_at);
