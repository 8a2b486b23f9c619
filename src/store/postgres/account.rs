//! The store of all that belongs to an account.

use sqlx::PgPool;

/// Users and their sessions in PostgreSQL, in one database. See the [module's docs](super).
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pub(super) pool: PgPool,
}

impl PostgresStore {
    /// A store on a database that was [migrated](super::migrate).
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}
