//! The tables, and how they come about.

use sqlx::{Sqlite, SqlitePool};

use super::{
    super::sql::{MigrationFile, run_missing, store_error},
    pool::begin,
};
use crate::StoreError;

const FILES: &[MigrationFile] = &[(
    1,
    "users and refresh tokens",
    include_str!("../../../migrations/sqlite/0001_users_and_refresh_tokens.sql"),
)];

/// Creates the tables, or brings them up to date. Processes may call it at the same time, and
/// older ones after newer ones.
///
/// # Errors
/// Where the database can't be written.
pub async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let run = async {
        let mut connection = pool.acquire().await?;
        let mut tx = begin(&mut connection).await?;
        run_missing(&mut *tx, "tower_warden_migrations", FILES).await?;
        tx.commit().await
    };
    run.await.map_err(store_error::<Sqlite>)
}
