//! The store of all that belongs to an account.

use std::fmt;

use sqlx::Pool;

use super::Wing;
use crate::{SharedClock, SystemClock, audit::AuditTrail, token::Revocations};

/// Accounts, sessions, API keys and second factors in one SQL database: `SqliteStore`, `PostgresStore`.
///
/// Clones share the pool.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_warden::{store::sqlite::{self, SqliteStore}, user::UserStore};
/// let pool = sqlite::connect("sqlite::memory:").await?;
/// sqlite::migrate(&pool).await?;
/// assert_eq!(SqliteStore::new(pool).count().await?, 0);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct SqlStore<W: Wing> {
    pub(super) pool: Pool<W>,
    pub(super) clock: SharedClock,
    pub(super) revocations: Revocations,
    pub(super) audit: AuditTrail,
    /// Whether nothing may last longer than a transaction.
    pub(super) behind_pooler: bool,
}

impl<W: Wing> SqlStore<W> {
    /// A store on a database that was migrated.
    #[must_use]
    pub fn new(pool: Pool<W>) -> Self {
        let behind_pooler = W::is_behind_pooler(&pool);
        let (clock, revocations) = (SystemClock::shared(), Revocations::new());
        Self { pool, clock, revocations, audit: AuditTrail::new(), behind_pooler }
    }

    /// Where time comes from: the machine's clock unless set.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// What is known in this process to be revoked.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }
}

impl<W: Wing> Clone for SqlStore<W> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            clock: self.clock.clone(),
            revocations: self.revocations.clone(),
            audit: self.audit.clone(),
            behind_pooler: self.behind_pooler,
        }
    }
}

impl<W: Wing> fmt::Debug for SqlStore<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &W::NAME).finish_non_exhaustive()
    }
}
