-- Accounts for life: suspension, forgotten passwords, changed addresses. Run by
-- src/store/sqlite/migrate.rs; the queries on it are in src/store/sql/user.rs. Its twin:
-- ../postgres/0003_accounts.sql. An older server still runs on it.

ALTER TABLE tower_warden_users ADD COLUMN suspended_at INTEGER;

-- One more each time that all sessions end at once: a login that began before opens none.
ALTER TABLE tower_warden_users ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

CREATE INDEX tower_warden_users_newest ON tower_warden_users (created_at, id);

-- A token that was used or ended stays for a while, past its time: a new one may have to wait.
CREATE TABLE tower_warden_reset_tokens (
    user_id    TEXT    NOT NULL PRIMARY KEY REFERENCES tower_warden_users (id) ON DELETE CASCADE,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX tower_warden_reset_tokens_expires_at ON tower_warden_reset_tokens (expires_at);

CREATE TABLE tower_warden_email_changes (
    user_id    TEXT    NOT NULL PRIMARY KEY REFERENCES tower_warden_users (id) ON DELETE CASCADE,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- The address that is wanted. Many may want the same.
    email      TEXT    NOT NULL
) STRICT;

CREATE INDEX tower_warden_email_changes_expires_at ON tower_warden_email_changes (expires_at);
