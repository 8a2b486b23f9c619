//! What only SQLite can get wrong.

use std::{path::Path, sync::Arc};

use sqlx::{
    AssertSqlSafe, Connection, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    query, query_scalar,
};
use tempfile::tempdir;
use tokio::task::JoinSet;
use tower_warden::{
    Clock, ManualClock, Role, UserId,
    store::sqlite::{SqliteStore, connect, migrate},
    token::{Rotation, TokenStore},
    user::UserStore,
};

use crate::{
    audit::{self, Heard},
    sql, upgrade,
};

fn url(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("some/where/test.db").display())
}

async fn open(directory: &Path) -> SqlitePool {
    let pool = connect(&url(directory)).await.unwrap();
    migrate(&pool).await.unwrap();
    pool
}

/// A database in a file, which goes when the runtime of the test does.
pub(crate) async fn database() -> SqlitePool {
    let directory = tempdir().unwrap();
    let pool = open(directory.path()).await;
    tokio::spawn(async move {
        let _kept = directory;
        std::future::pending::<()>().await;
    });
    pool
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_stops_nothing_and_leaves_nothing_open() {
    let directory = tempdir().unwrap();
    let pool = open(directory.path()).await;
    sql::a_caller_who_leaves_stops_nothing(&SqliteStore::new(pool)).await;

    // Whoever had a transaction open would keep this one from beginning.
    let mut other = SqliteConnection::connect(&url(directory.path())).await.unwrap();
    other.begin_with("BEGIN IMMEDIATE").await.unwrap().rollback().await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_when_opened_again() {
    let directory = tempdir().unwrap();
    let pool = open(directory.path()).await;
    let id = sql::add_user(&SqliteStore::new(pool.clone()), "a@b.co", Role::ADMIN).await;
    pool.close().await;

    let pool = open(directory.path()).await;
    let user = SqliteStore::new(pool.clone()).find(&id).await.unwrap().unwrap();
    assert_eq!(user.email.as_str(), "a@b.co");
    let mode: String = query_scalar("PRAGMA journal_mode").fetch_one(&pool).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn memory_is_one_database_for_all_who_share_the_pool() {
    let pool = connect("sqlite::memory:").await.unwrap();
    migrate(&pool).await.unwrap();
    let users = Arc::new(SqliteStore::new(pool.clone()));
    let mut registrations = JoinSet::new();
    for n in 0..20 {
        let users = Arc::clone(&users);
        registrations
            .spawn(async move { sql::add_user(&*users, &format!("{n}@b.co"), Role::VIEWER).await });
    }
    registrations.join_all().await;
    assert_eq!(users.count().await.unwrap(), 20);
    assert_eq!(pool.size(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_all_start() {
    let directory = tempdir().unwrap();
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let directory = directory.path().to_owned();
        starts.spawn(async move { open(&directory).await });
    }
    starts.join_all().await;
}

#[tokio::test]
async fn processes_hear_of_each_others_revocations() {
    let directory = tempdir().unwrap();
    let clock = ManualClock::new();
    let open = async || {
        let store = SqliteStore::new(open(directory.path()).await);
        store.with_clock(Arc::new(clock.clone()))
    };
    let stores = [open().await, open().await, open().await];
    sql::servers_hear_of_each_others_revocations(stores, &clock).await;
}

/// As the code of migration 0001 wrote it.
#[tokio::test]
async fn process_of_the_first_schema_still_runs() {
    let pool = database().await;
    let clock = ManualClock::new();
    let now = i64::try_from(clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros())
        .unwrap();
    let token = sql::random_hash();
    query(
        "INSERT INTO tower_warden_families (id, user_id, created_at, last_used_at, expires_at)
         VALUES ('f', 'ada', $1, $1, NULL)",
    )
    .bind(now)
    .execute(&pool)
    .await
    .unwrap();
    query(
        "INSERT INTO tower_warden_refresh_tokens
            (hash, family_id, generation, issued_at, expires_at, superseded_at)
         VALUES ($1, 'f', 0, $2, $3, NULL)",
    )
    .bind(&token.as_bytes()[..])
    .bind(now)
    .bind(now + 3_600_000_000)
    .execute(&pool)
    .await
    .unwrap();
    query(
        "INSERT INTO tower_warden_users
            (id, email, password_hash, role, plan, email_verified, created_at)
         VALUES ('ada', 'a@b.co', 'x', 'viewer', NULL, 1, $1)",
    )
    .bind(now)
    .execute(&pool)
    .await
    .unwrap();

    let store = SqliteStore::new(pool).with_clock(Arc::new(clock.clone()));
    let ada = UserId::from("ada");
    assert_eq!(store.sessions(&ada, clock.now()).await.unwrap().len(), 1);
    let rotated = store.rotate(sql::rotation(token, sql::random_hash(), &clock)).await.unwrap();
    assert!(matches!(rotated, Rotation::Rotated { .. }));
    let shared: tower_warden::SharedClock = Arc::new(clock.clone());
    let reason = tower_warden::token::RevokeReason::LogoutAll;
    assert_eq!(store.revoke_user(&ada, None, reason, &shared).await.unwrap(), 1);
    assert_eq!(store.sessions(&ada, clock.now()).await.unwrap(), []);
    assert!(UserStore::find(&store, &ada).await.unwrap().is_some());
}

#[tokio::test]
async fn hosts_own_migrations_are_left_alone() {
    let pool = database().await;
    let host = Migrator::with_migrations(vec![Migration::new(
        1,
        "the host's".into(),
        MigrationType::Simple,
        sqlx::SqlSafeStr::into_sql_str("CREATE TABLE users (id INTEGER)"),
        false,
    )]);
    host.run(&pool).await.unwrap();
    migrate(&pool).await.unwrap();
    host.run(&pool).await.unwrap();
    let count = "SELECT count(*) FROM _sqlx_migrations";
    assert_eq!(query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap(), 1);
}

#[tokio::test]
async fn older_release_starts_on_a_newer_schema() {
    let pool = database().await;
    query(
        "INSERT INTO tower_warden_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    migrate(&pool).await.unwrap();
}

#[tokio::test]
async fn clean_up_takes_the_tokens_along() {
    let pool = database().await;
    let store = SqliteStore::new(pool.clone());
    let clock = ManualClock::new();
    let token = sql::login(&store, &UserId::random(), &clock).await;
    let rotated = store.rotate(sql::rotation(token, sql::random_hash(), &clock)).await.unwrap();
    assert!(matches!(rotated, Rotation::Rotated { .. }));

    assert_eq!(store.delete_expired_sessions(clock.now() + sql::HOUR, 10).await.unwrap(), 0);
    clock.advance(std::time::Duration::from_micros(1));
    assert_eq!(store.delete_expired_sessions(clock.now() + sql::HOUR, 10).await.unwrap(), 2);
    let tokens = "SELECT count(*) FROM tower_warden_refresh_tokens";
    assert_eq!(query_scalar::<_, i64>(tokens).fetch_one(&pool).await.unwrap(), 0);
}

#[tokio::test]
async fn failures_that_pass_are_told_from_those_that_stay() {
    let pool = database().await;
    let users = SqliteStore::new(pool.clone());
    query("ALTER TABLE tower_warden_users RENAME TO elsewhere").execute(&pool).await.unwrap();
    assert!(!users.count().await.unwrap_err().is_unavailable());
    pool.close().await;
    assert!(users.count().await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn url_that_names_no_file_is_refused() {
    for url in ["sqlite:", "sqlite://", "postgres://localhost/app", "test.db"] {
        assert!(!connect(url).await.unwrap_err().is_unavailable(), "{url}");
    }
}

/// That many sessions of Ada's, as [`sql::numbered_hash`] names their tokens.
async fn write_sessions(pool: &SqlitePool, count: u32, clock: &ManualClock) {
    let now = sql::micros(clock);
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    for n in 0..count {
        query(
            "INSERT INTO tower_warden_families (id, user_id, created_at, last_used_at, epoch)
             VALUES ('session ' || $1, 'ada', $2, $2, 0)",
        )
        .bind(n)
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
        query(
            "INSERT INTO tower_warden_refresh_tokens
                (hash, family_id, generation, issued_at, expires_at)
             VALUES ($1, 'session ' || $2, 0, $3, $3 + 3600000000)",
        )
        .bind(&sql::numbered_hash(n).as_bytes()[..])
        .bind(n)
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sessions_end_at_once() {
    const COUNT: u32 = 2500;
    let (directory, clock) = (tempdir().unwrap(), ManualClock::new());
    let pool = open(directory.path()).await;
    write_sessions(&pool, COUNT, &clock).await;
    let other = open(directory.path()).await;
    let stores = [pool, other].map(|pool| {
        let store = SqliteStore::new(pool);
        store.with_clock(Arc::new(clock.clone()))
    });
    sql::thousands_of_sessions_end_at_once(stores, COUNT, &clock).await;
}

/// Two millions have been tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_session_is_forgotten_while_others_write() {
    const TOKENS: u32 = 200_000;
    let (pool, clock) = (database().await, ManualClock::new());
    write_sessions(&pool, 1, &clock).await;
    query(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
         INSERT INTO tower_warden_refresh_tokens
            (hash, family_id, generation, issued_at, expires_at, superseded_at)
         SELECT randomblob(32), 'session 0', n, $2, $2 + 3600000000, $2 FROM numbers",
    )
    .bind(TOKENS)
    .bind(sql::micros(&clock))
    .execute(&pool)
    .await
    .unwrap();
    let store = SqliteStore::new(pool).with_clock(Arc::new(clock.clone()));
    sql::a_very_long_session_is_forgotten_while_others_write(store, TOKENS.into(), &clock).await;
}

impl upgrade::Old for SqlitePool {
    const WORDS: [&str; 3] = ["tower_warden_", "", "x'{}'"];
    const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_users_and_refresh_tokens.sql");

    type Store = SqliteStore;

    async fn run(&mut self, sql: String) -> u64 {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&*self).await.unwrap();
        if sql.starts_with("SELECT") {
            return rows.len() as u64;
        }
        let changes = query_scalar::<_, i64>("SELECT changes()").fetch_one(&*self).await.unwrap();
        changes.unsigned_abs()
    }

    async fn upgrade(&mut self, clock: tower_warden::SharedClock) -> SqliteStore {
        migrate(self).await.unwrap();
        SqliteStore::new(self.clone()).with_clock(clock)
    }
}

#[tokio::test]
async fn upgraded_in_place_while_an_older_server_still_runs() {
    // One connection: the tests ask it how many rows it changed.
    let pool = connect("sqlite::memory:").await.unwrap();
    upgrade::upgraded_in_place_while_an_older_server_still_runs(pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_audit_events_stand_and_fall_together() {
    let (pool, heard) = (database().await, Heard::default());
    let trail = heard.trail().with_table();
    let store = SqliteStore::new(pool.clone()).with_clock(audit::clock()).with_audit(trail);
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON tower_warden_audit_events
                  BEGIN SELECT RAISE(ABORT, 'no room'); END";
    // After the event is written.
    let fail = "CREATE TRIGGER fail AFTER INSERT ON tower_warden_audit_events
                BEGIN SELECT RAISE(FAIL, 'too late'); END";
    let script = [refuse, "DROP TRIGGER refuse", fail];
    audit::changes_and_events_stand_and_fall_together(store, heard, script, |text| {
        let pool = pool.clone();
        async move {
            sqlx::raw_sql(text).execute(&pool).await.unwrap();
        }
    })
    .await;
}
