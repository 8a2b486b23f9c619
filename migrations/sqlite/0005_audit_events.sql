-- Who did what. Run by src/store/sqlite/migrate.rs; the queries on it are in src/store/sql/audit.rs.
-- Its twin: ../postgres/0005_audit_events.sql.
--
-- Times are microseconds since the Unix epoch, as in the first file. subject and actor refer to nothing:
-- what was done stays when its user is deleted.

CREATE TABLE tower_warden_audit_events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    act        TEXT    NOT NULL,
    outcome    TEXT    NOT NULL, -- done, refused
    subject    TEXT,             -- a user
    object     TEXT,             -- a session or a key of the subject
    detail     TEXT,
    actor_kind TEXT    NOT NULL, -- program, nobody, user, key
    actor      TEXT,             -- a user, the key's owner
    actor_role TEXT,
    actor_key  TEXT,
    session    TEXT,             -- of the actor
    ip         TEXT,
    user_agent TEXT,
    request_id TEXT
) STRICT;

CREATE INDEX tower_warden_audit_events_at ON tower_warden_audit_events (at);
CREATE INDEX tower_warden_audit_events_subject ON tower_warden_audit_events (subject, id);
CREATE INDEX tower_warden_audit_events_actor ON tower_warden_audit_events (actor, id);
