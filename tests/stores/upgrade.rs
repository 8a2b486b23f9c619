//! Databases as they were before there were accounts for life: brought up to date in place, while a
//! server of that state still runs on them.

use std::sync::Arc;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};
use tower_warden::{
    Clock, ManualClock, Role, SharedClock, TokenHash, UserId,
    token::{RevokeReason, Rotation, TokenStore},
    user::{Email, UserChange, UserStore},
};

use crate::sql::{self, micros};

/// A database of either kind.
pub(crate) trait Old {
    /// The tables' prefix, what locks rows, and how bytes are written.
    const WORDS: [&str; 3];
    const SCHEMA: &str;

    type Store: UserStore + TokenStore;

    /// Carries a statement out, and answers how many rows it concerned.
    async fn run(&mut self, sql: String) -> u64;

    /// Brings it up to date, and opens a store on it.
    async fn upgrade(&mut self, clock: SharedClock) -> Self::Store;
}

/// A statement of a server of the first schema, as it was written then. `{t}` is the schema, `{lock}`
/// locks rows; `#text#` is the hash of a token of this name, `@n` is n minutes after now.
async fn run<D: Old>(database: &mut D, clock: &ManualClock, sql: &str) -> u64 {
    let [prefix, lock, bytes] = D::WORDS;
    let mut text = sql.replace("{t}", prefix).replace("{lock}", lock);
    while let Some((before, rest)) = text.split_once('#') {
        let (name, after) = rest.split_once('#').unwrap();
        let hash: String =
            TokenHash::of(name).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        text = format!("{before}{}{after}", bytes.replace("{}", &hash));
    }
    while let Some((before, rest)) = text.split_once('@') {
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let minutes: i64 = rest[..end].parse().unwrap();
        text = format!("{before}{}{}", micros(clock) + minutes * 60_000_000, &rest[end..]);
    }
    database.run(text.replace(" at ", "@")).await
}

const REGISTER: &str = "INSERT INTO {t}users
    (id, email, password_hash, role, plan, email_verified, created_at)
    VALUES ('NAME', 'NAME at b.co', 'hash of NAME', 'viewer', NULL, FALSE, @0)
    ON CONFLICT (email) DO NOTHING";
const PUT_LINK: &str =
    "INSERT INTO {t}verification_tokens AS old (user_id, hash, created_at, expires_at)
    VALUES ('NAME', #link of NAME#, @0, @60)
    ON CONFLICT (user_id) DO UPDATE
    SET hash = excluded.hash, created_at = excluded.created_at, expires_at = excluded.expires_at
    WHERE old.created_at <= @-1";
const LOGIN: [&str; 2] = [
    "INSERT INTO {t}families (id, user_id, created_at, last_used_at, expires_at)
     VALUES ('SESSION', 'NAME', @0, @0, NULL)",
    "INSERT INTO {t}refresh_tokens (hash, family_id, generation, issued_at, expires_at, superseded_at)
     VALUES (#SESSION 0#, 'SESSION', 0, @0, @60, NULL)",
];
const REFRESH: [&str; 5] = [
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
     FROM {t}families
     WHERE id = (SELECT family_id FROM {t}refresh_tokens WHERE hash = #SESSION 0#){lock}",
    "SELECT generation, issued_at, expires_at, superseded_at
     FROM {t}refresh_tokens WHERE hash = #SESSION 0#",
    "UPDATE {t}families SET last_used_at = @0 WHERE id = 'SESSION'",
    "UPDATE {t}refresh_tokens SET superseded_at = @0 WHERE hash = #SESSION 0#",
    "INSERT INTO {t}refresh_tokens (hash, family_id, generation, issued_at, expires_at, superseded_at)
     VALUES (#SESSION 1#, 'SESSION', 1, @0, @60, NULL)",
];
const LOGOUT: &str =
    "UPDATE {t}families SET revoked_at = @0, revoked_reason = 'logout' WHERE id = 'SESSION'";
const PROVE: [&str; 4] = [
    "SELECT user_id FROM {t}verification_tokens WHERE hash = #link of NAME# AND expires_at > @0",
    "SELECT id FROM {t}users
     WHERE id = (SELECT user_id FROM {t}verification_tokens WHERE hash = #link of NAME#){lock}",
    "DELETE FROM {t}verification_tokens WHERE hash = #link of NAME# AND expires_at > @0",
    "UPDATE {t}users SET email_verified = TRUE WHERE id = 'NAME'",
];
const PROMOTE: &str = "UPDATE {t}users
    SET role = coalesce('admin', role), plan = CASE WHEN FALSE THEN NULL ELSE plan END,
        email_verified = email_verified OR FALSE
    WHERE id = 'NAME'";
const ADMINS: &str =
    "SELECT id FROM {t}users WHERE role = 'admin' AND email_verified ORDER BY id{lock}";
const REHASH: &str = "UPDATE {t}users SET password_hash = 'newer'
    WHERE id = 'NAME' AND password_hash = 'hash of NAME'";
const FIND: &str = "SELECT id, email, role, plan, email_verified, created_at, password_hash
    FROM {t}users WHERE email = 'NAME at b.co'";
const LOGOUT_ALL: [&str; 2] = [
    "SELECT id FROM {t}families WHERE user_id = 'NAME' AND revoked_at IS NULL ORDER BY id{lock}",
    "UPDATE {t}families SET revoked_at = @0, revoked_reason = 'logout_all'
     WHERE id IN (SELECT id FROM {t}families WHERE user_id = 'NAME' AND revoked_at IS NULL)",
];
const CLEAN_UP: &str = "DELETE FROM {t}families WHERE id IN (
    SELECT family_id FROM {t}refresh_tokens
    WHERE superseded_at IS NULL AND expires_at < @0 ORDER BY expires_at LIMIT 1000)";

pub(crate) async fn upgraded_in_place_while_an_older_server_still_runs<D: Old>(mut database: D) {
    let clock = ManualClock::new();
    let shared: SharedClock = Arc::new(clock.clone());
    for statement in as_sqlx_kept_it::<D>() {
        database.run(statement).await;
    }
    let old = async |database: &mut D, sql: &str, name: &str, session: &str| {
        let sql = sql.replace("NAME", name).replace("SESSION", session);
        let rows = run(database, &clock, &sql).await;
        assert!(rows >= 1, "{sql}");
    };
    for name in ["ada", "bob"] {
        old(&mut database, REGISTER, name, "").await;
        old(&mut database, PUT_LINK, name, "").await;
    }
    for sql in PROVE {
        old(&mut database, sql, "ada", "").await;
    }
    old(&mut database, PROMOTE, "ada", "").await;
    for session in ["lives", "was refreshed", "has ended"] {
        for sql in LOGIN {
            old(&mut database, sql, "ada", session).await;
        }
    }
    for sql in REFRESH {
        old(&mut database, sql, "ada", "was refreshed").await;
    }
    old(&mut database, LOGOUT, "ada", "has ended").await;

    let store = database.upgrade(Arc::clone(&shared)).await;
    let (ada, bob) = (UserId::from("ada"), UserId::from("bob"));
    let email = |name: &str| Email::parse(&format!("{name}@b.co")).unwrap();
    let token = |session: &str, n: u8| TokenHash::of(&format!("{session} {n}"));
    let rotate = async |session: &str, n: u8| {
        let request = sql::rotation(token(session, n), token(session, n + 1), &clock);
        store.rotate(request).await.unwrap()
    };

    // All that was there is good, and as it was.
    let (user, hash) = store.find_by_email(&email("ada")).await.unwrap().unwrap();
    assert_eq!((&user.id, &user.role, hash.expose()), (&ada, &Role::ADMIN, "hash of ada"));
    assert_eq!((user.email_verified, user.suspended, user.epoch), (true, false, 0));
    assert_eq!(store.sessions(&ada, clock.now()).await.unwrap().len(), 2);
    assert_eq!(rotate("has ended", 0).await, Rotation::Revoked);
    assert!(matches!(rotate("lives", 0).await, Rotation::Rotated { .. }));
    assert!(matches!(rotate("was refreshed", 1).await, Rotation::Rotated { .. }));
    assert!(matches!(rotate("was refreshed", 0).await, Rotation::Reused { .. }));
    let link = TokenHash::of("link of bob");
    assert_eq!(store.verify_email(&link, clock.now()).await.unwrap().unwrap().id, bob);

    // The older server goes on beside the new one: all that it says still works.
    old(&mut database, REGISTER, "eve", "").await;
    old(&mut database, PUT_LINK, "eve", "").await;
    for sql in PROVE.iter().chain([&PROMOTE, &ADMINS, &REHASH, &FIND]) {
        old(&mut database, sql, "eve", "").await;
    }
    for session in ["by the old one", "refreshed by the old one"] {
        for sql in LOGIN {
            old(&mut database, sql, "eve", session).await;
        }
    }
    for sql in REFRESH {
        old(&mut database, sql, "eve", "refreshed by the old one").await;
    }
    // And the new one knows what to make of it.
    let eve = UserId::from("eve");
    let (user, hash) = store.find_by_email(&email("eve")).await.unwrap().unwrap();
    assert_eq!((user.email_verified, hash.expose()), (true, "newer"));
    assert!(matches!(rotate("by the old one", 0).await, Rotation::Rotated { .. }));
    assert!(matches!(rotate("refreshed by the old one", 1).await, Rotation::Rotated { .. }));
    let all = store.revoke_user(&eve, None, RevokeReason::LogoutAll, &shared).await.unwrap();
    assert_eq!(all, 2);
    for (session, n) in [("by the old one", 1), ("refreshed by the old one", 2)] {
        assert_eq!(rotate(session, n).await, Rotation::Revoked);
    }
    let suspended = UserChange::new().with_suspended(true);
    assert!(store.update(&eve, suspended).await.unwrap().suspended);

    // What the old one ends has ended for the new one.
    assert!(matches!(rotate("lives", 1).await, Rotation::Rotated { .. }));
    for sql in LOGOUT_ALL {
        old(&mut database, sql, "ada", "").await;
    }
    assert_eq!(rotate("lives", 2).await, Rotation::Revoked);
    clock.advance(2 * sql::HOUR);
    old(&mut database, CLEAN_UP, "", "").await;
    assert!(store.find_token(&token("lives", 2)).await.unwrap().is_none());
    assert_eq!(store.count().await.unwrap(), 3);
}

/// The first schema, and the row that says so.
fn as_sqlx_kept_it<D: Old>() -> [String; 3] {
    let (about, kind) = ("users and refresh tokens", MigrationType::Simple);
    let file = Migration::new(1, about.into(), kind, D::SCHEMA.into_sql_str(), false);
    let checksum: String = file.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    let [prefix, _, bytes] = D::WORDS;
    let table = format!(
        "CREATE TABLE {prefix}migrations (
            version BIGINT PRIMARY KEY,
            description TEXT NOT NULL,
            installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            success BOOLEAN NOT NULL,
            checksum {} NOT NULL,
            execution_time BIGINT NOT NULL)",
        if bytes.starts_with('x') { "BLOB" } else { "BYTEA" }
    );
    let row = format!(
        "INSERT INTO {prefix}migrations (version, description, success, checksum, execution_time)
         VALUES (1, '{about}', TRUE, {}, 1000)",
        bytes.replace("{}", &checksum)
    );
    [D::SCHEMA.to_owned(), table, row]
}
