-- Who did what. Run by src/store/postgres/migrate.rs; the queries on it are in src/store/sql/audit.rs.
-- Its twin: ../sqlite/0005_audit_events.sql.
--
-- Times are microseconds since the Unix epoch, as in the first file. subject and actor refer to nothing:
-- what was done stays when its user is deleted.

CREATE TABLE tower_warden.audit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         bigint NOT NULL,
    act        text   NOT NULL,
    outcome    text   NOT NULL, -- done, refused
    subject    text,            -- a user
    object     text,            -- a session or a key of the subject
    detail     text,
    actor_kind text   NOT NULL, -- program, nobody, user, key
    actor      text,            -- a user, the key's owner
    actor_role text,
    actor_key  text,
    session    text,            -- of the actor
    ip         text,
    user_agent text,
    request_id text
);

CREATE INDEX audit_events_at ON tower_warden.audit_events (at);
CREATE INDEX audit_events_subject ON tower_warden.audit_events (subject, id);
CREATE INDEX audit_events_actor ON tower_warden.audit_events (actor, id);
