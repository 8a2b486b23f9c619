//! The schema, and how it comes about.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, PgPool, Postgres, query_scalar, raw_sql};
use tokio::time::sleep;

use super::super::sql::{MigrationFile, Wing, run_missing, store_error};
use crate::StoreError;

const FILES: &[MigrationFile] = &[
    (
        1,
        "users and refresh tokens",
        include_str!("../../../migrations/postgres/0001_users_and_refresh_tokens.sql"),
    ),
    (3, "accounts", include_str!("../../../migrations/postgres/0003_accounts.sql")),
    (
        2,
        "sessions and revocations",
        include_str!("../../../migrations/postgres/0002_sessions_and_revocations.sql"),
    ),
    (
        4,
        "API keys and second factors",
        include_str!("../../../migrations/postgres/0004_api_keys_and_second_factors.sql"),
    ),
    (5, "audit events", include_str!("../../../migrations/postgres/0005_audit_events.sql")),
    (
        7,
        "sessions in great numbers",
        include_str!("../../../migrations/postgres/0007_sessions_in_great_numbers.sql"),
    ),
];

/// Under this lock servers that start together migrate one after the other. Not sqlx's own lock: a
/// host may hold that one while it calls us.
const LOCK: i64 = i64::from_be_bytes(*b"towerwrd");

/// How long another server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A wait that is longer is told.
const NEWS: Duration = Duration::from_secs(1);

const LOCAL_SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'";

/// Creates the schema `tower_warden`, or brings it up to date: all of it, or nothing. Servers may call
/// it at the same time, and older ones after newer ones. Its lock and its settings end with its
/// transaction, so that a pooler hands none of them on.
///
/// # Errors
/// Where the database can't be reached, the role may neither create the schema nor owns it, or another
/// server migrates for longer than 30 s.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    migrate_within(PATIENCE, pool).await
}

async fn migrate_within(patience: Duration, pool: &PgPool) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(store_error::<Postgres>)?;
    let mut tx = connection.begin_with(Postgres::BEGIN).await.map_err(store_error::<Postgres>)?;
    lock(&mut tx, patience).await?;
    let run = async {
        // Not CREATE SCHEMA IF NOT EXISTS, which asks for the right to create even where it exists.
        let exists = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'tower_warden')";
        if !query_scalar(exists).persistent(false).fetch_one(&mut *tx).await? {
            raw_sql("CREATE SCHEMA tower_warden").execute(&mut *tx).await?;
        }
        run_missing(&mut *tx, FILES).await?;
        tx.commit().await
    };
    run.await.map_err(store_error::<Postgres>)
}

async fn lock(connection: &mut PgConnection, patience: Duration) -> Result<(), StoreError> {
    let failed = store_error::<Postgres>;
    raw_sql(LOCAL_SETTINGS).execute(&mut *connection).await.map_err(failed)?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        let lock = query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK);
        if lock.persistent(false).fetch_one(&mut *connection).await.map_err(failed)? {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let held = "another server holds the lock of the migrations for longer than";
            return Err(StoreError::unavailable(format!("{held} {patience:?}")));
        }
        // Servers that start together wait for a moment: no news.
        if begun.elapsed() > NEWS && !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for another server, which migrates the database");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[ignore = "needs PostgreSQL: run tests/run"]
    async fn who_waits_for_the_lock_of_another_gives_up_in_time_and_says_why() {
        let url = std::env::var("TOWER_WARDEN_TEST_POSTGRES").expect("run tests/run");
        let pool = super::super::connect(&url).await.unwrap();
        // The lock is of the whole server's database `postgres`, which no other test migrates.
        let mut holder = PgConnection::connect(&url).await.unwrap();
        let take = sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK);
        take.execute(&mut holder).await.unwrap();

        let (begun, patience) = (Instant::now(), Duration::from_millis(250));
        let error = migrate_within(patience, &pool).await.unwrap_err();
        let took = begun.elapsed();
        assert!(error.is_unavailable());
        assert!(took >= patience && took < patience + Duration::from_secs(1), "{took:?}");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(why, "another server holds the lock of the migrations for longer than 250ms");
        let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> $1
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND (classid::bigint << 32) + objid::bigint = $2";
        let pid: i32 =
            query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
        let left = query_scalar::<_, i64>(left).bind(pid).bind(LOCK);
        assert_eq!(left.fetch_one(&mut holder).await.unwrap(), 0, "a lock was left behind");
    }
}
