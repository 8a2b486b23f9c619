//! How a schema is brought up to date.

use sqlx::{
    SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
};

/// A file under `migrations/`: its number, what it is about, its text.
pub(in crate::store) type File = (i64, &'static str, &'static str);

/// Runs the files that the table does not name, in their order. The caller sees to it that nobody
/// else does so meanwhile.
///
/// sqlx's own `Migrator::run` would do it, were its future `Send` for a borrowed connection. Like
/// it we refuse where a file was changed after it ran; unlike it we let pass what is in the table
/// and not among the files: a newer release has been here, and only added.
pub(in crate::store) async fn run_missing<C: Migrate + Send>(
    connection: &mut C,
    table: &str,
    files: &[File],
) -> sqlx::Result<()> {
    let run = async {
        connection.ensure_migrations_table(table).await?;
        let applied = connection.list_applied_migrations(table).await?;
        for &(version, about, sql) in files {
            let sql = sql.into_sql_str();
            let file = Migration::new(version, about.into(), MigrationType::Simple, sql, false);
            match applied.iter().find(|applied| applied.version == version) {
                None => drop(connection.apply(table, &file).await?),
                Some(applied) if applied.checksum == file.checksum => {}
                Some(_) => return Err(MigrateError::VersionMismatch(version)),
            }
        }
        Ok(())
    };
    run.await.map_err(|error| match error {
        // Bare, so that what it means is known as of any other statement's.
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
        error => error.into(),
    })
}
