//! The tables, and how they come about.

use sqlx::{Connection, Sqlite, SqlitePool};

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
];

/// Creates the tables, or brings them up to date. Processes may call it at the same time, and
/// older ones after newer ones.
///
/// # Errors
/// Where the database can't be written.
pub async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let run = async {
        let mut connection = pool.acquire().await?;
        let mut tx = connection.begin_with(Sqlite::BEGIN).await?;
        run_missing(&mut *tx, "tower_warden_migrations", FILES).await?;
        tx.commit().await
    };
    run.await.map_err(store_error::<Sqlite>)
}
