//! The store of all that belongs to an account.

use sqlx::SqlitePool;

/// Users and their sessions in SQLite, in one database. See the [module's docs](super).
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pub(super) pool: SqlitePool,
}

impl SqliteStore {
    /// A store on a database that was [migrated](super::migrate).
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }
}
