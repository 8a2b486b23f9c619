-- The sessions of a user that may be live, beside any number that have ended. Run by
-- src/store/sqlite/migrate.rs; the queries on it are in src/store/sql/token.rs. Its twin:
-- ../postgres/0007_sessions_in_great_numbers.sql.

CREATE INDEX tower_warden_families_current ON tower_warden_families (user_id, epoch) WHERE revoked_at IS NULL;
