//! The tables, and how they come about.

use std::time::{Duration, Instant};

use sqlx::{Connection, Sqlite, SqlitePool};
use tokio::time::sleep;

use super::super::sql::{MigrationFile, Wing, run_missing, store_error};
use crate::StoreError;

const FILES: &[MigrationFile] = &[
    (
        1,
        "users and refresh tokens",
        include_str!("../../../migrations/sqlite/0001_users_and_refresh_tokens.sql"),
    ),
    (3, "accounts", include_str!("../../../migrations/sqlite/0003_accounts.sql")),
    (
        2,
        "sessions and revocations",
        include_str!("../../../migrations/sqlite/0002_sessions_and_revocations.sql"),
    ),
    (
        4,
        "API keys and second factors",
        include_str!("../../../migrations/sqlite/0004_api_keys_and_second_factors.sql"),
    ),
    (5, "audit events", include_str!("../../../migrations/sqlite/0005_audit_events.sql")),
    (
        7,
        "sessions in great numbers",
        include_str!("../../../migrations/sqlite/0007_sessions_in_great_numbers.sql"),
    ),
];

/// How long another process may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Creates the tables, or brings them up to date: all of them, or none. Processes may call it at the
/// same time, and older ones after newer ones.
///
/// # Errors
/// Where the database can't be written, or another process holds it for longer than 30 s.
pub async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match once(pool).await.map_err(store_error::<Sqlite>) {
            Err(busy) if busy.is_unavailable() && begun.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("waiting for another process, which holds the database");
                }
                sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

async fn once(pool: &SqlitePool) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin_with(Sqlite::BEGIN).await?;
    run_missing(&mut *tx, FILES).await?;
    tx.commit().await
}
