-- The sessions of a user that may be live, beside any number that have ended. Run by
-- src/store/postgres/migrate.rs; the queries on it are in src/store/sql/token.rs. Its twin:
-- ../sqlite/0007_sessions_in_great_numbers.sql.

CREATE INDEX families_current ON tower_warden.families (user_id, epoch) WHERE revoked_at IS NULL;
