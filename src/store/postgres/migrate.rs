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
    (
        7,
        "sessions in great numbers",
        include_str!("../../../migrations/postgres/0007_sessions_in_great_numbers.sql"),
    ),
];

/// Under this lock servers that start together migrate one after the other. Not sqlx's own lock: a
/// host may hold that one while it calls us.
const LOCK: i64 = i64::from_be_bytes(*b"portcull");

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
    let mut connection = pool.acquire().await.map_err(store_error::<Postgres>)?;
    let mut tx = connection.begin_with(Postgres::BEGIN).await.map_err(store_error::<Postgres>)?;
    lock(&mut tx).await?;
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

async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    let failed = store_error::<Postgres>;
    raw_sql(LOCAL_SETTINGS).execute(&mut *connection).await.map_err(failed)?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        let lock = query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK);
        if lock.persistent(false).fetch_one(&mut *connection).await.map_err(failed)? {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(StoreError::unavailable(
                "another server holds the lock of the migrations for longer than 30 s",
            ));
        }
        // Servers that start together wait for a moment: no news.
        if begun.elapsed() > NEWS && !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for another server, which migrates the database");
        }
        sleep(Duration::from_millis(100)).await;
    }
}
