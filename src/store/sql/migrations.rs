//! How a schema is brought up to date.

use sqlx::{
    SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType},
};

use super::{
    Primitives, Value,
    statement::{Statement, sql},
};

/// A file under `migrations/`: its number, what it is about, its text.
pub(in crate::store) type File = (i64, &'static str, &'static str);

/// As sqlx makes it: older releases had it done by sqlx.
const TABLE: Statement = Statement {
    sqlite: "CREATE TABLE IF NOT EXISTS tower_warden_migrations (
        version BIGINT PRIMARY KEY,
        description TEXT NOT NULL,
        installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        success BOOLEAN NOT NULL,
        checksum BLOB NOT NULL,
        execution_time BIGINT NOT NULL)",
    postgres: "CREATE TABLE IF NOT EXISTS tower_warden.migrations (
        version BIGINT PRIMARY KEY,
        description TEXT NOT NULL,
        installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
        success BOOLEAN NOT NULL,
        checksum BYTEA NOT NULL,
        execution_time BIGINT NOT NULL)",
};
const APPLIED: Statement = sql!("SELECT version, checksum FROM " migrations);
const NOTE: Statement = sql!(
    "INSERT INTO " migrations " (version, description, success, checksum, execution_time)
     VALUES ($1, $2, TRUE, $3, 0)"
);

/// Runs the files that the table does not name, in their order, in a transaction of the caller's, who
/// sees to it that nobody else does so meanwhile.
///
/// sqlx's own `Migrator` would do it, but for its session lock and named statements, which a pooler
/// hands to the next client. Like it we refuse where a file was changed after it ran; unlike it we let
/// pass what is in the table and not among the files: a newer release has been here, and only added.
pub(in crate::store) async fn run_missing(
    connection: &mut dyn Primitives,
    files: &[File],
) -> sqlx::Result<()> {
    connection.execute(&TABLE, Vec::new(), false).await?;
    let mut applied: Vec<(i64, Vec<u8>)> = Vec::new();
    for mut row in connection.fetch(&APPLIED, Vec::new(), false).await? {
        applied.push((row.take()?, row.take()?));
    }
    for &(version, about, text) in files {
        let sql = text.into_sql_str();
        let file = Migration::new(version, about.into(), MigrationType::Simple, sql, false);
        match applied.iter().find(|(applied, _)| *applied == version) {
            None => {
                connection.script(text).await?;
                let checksum = Value::Bytes(file.checksum.to_vec());
                let row = vec![version.into(), about.into(), checksum];
                connection.execute(&NOTE, row, false).await?;
            }
            Some((_, checksum)) if *checksum == *file.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(version).into()),
        }
    }
    Ok(())
}
