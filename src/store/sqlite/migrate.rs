//! The tables, and how they come about.

use sqlx::{
    SqlSafeStr, Sqlite, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{super::sql::store_error, pool::begin};
use crate::StoreError;

/// Creates the tables, or brings them up to date. Processes may call it at the same time, and
/// older ones after newer ones.
///
/// # Errors
/// Where the database can't be written.
pub async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let run = async {
        // All of it is one transaction: sqlx locks SQLite databases against nobody.
        let mut connection = pool.acquire().await?;
        let mut tx = begin(&mut connection).await?;
        migrator().run(&mut *tx).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
            error => error.into(),
        })?;
        tx.commit().await
    };
    run.await.map_err(store_error::<Sqlite>)
}

fn migrator() -> Migrator {
    let sql = include_str!("../../../migrations/sqlite/0001_users_and_refresh_tokens.sql");
    let mut migrator = Migrator::with_migrations(vec![Migration::new(
        1,
        "users and refresh tokens".into(),
        MigrationType::Simple,
        sql.into_sql_str(),
        false,
    )]);
    migrator.dangerous_set_table_name("portcullis_migrations");
    // What a newer release has added doesn't hinder us.
    migrator.set_ignore_missing(true);
    migrator
}
