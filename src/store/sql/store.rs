//! The store of all that belongs to an account.

use std::fmt;

use sqlx::Pool;

use super::Wing;
use crate::{SharedClock, SystemClock};

/// Users and their sessions in one SQL database: `SqliteStore`, `PostgresStore`.
///
/// Clones share the pool.
pub struct SqlStore<W: Wing> {
    pub(super) pool: Pool<W>,
    pub(super) clock: SharedClock,
}

impl<W: Wing> SqlStore<W> {
    /// A store on a database that was migrated.
    #[must_use]
    pub fn new(pool: Pool<W>) -> Self {
        Self { pool, clock: SystemClock::shared() }
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
}

impl<W: Wing> Clone for SqlStore<W> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), clock: self.clock.clone() }
    }
}

impl<W: Wing> fmt::Debug for SqlStore<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &W::NAME).finish_non_exhaustive()
    }
}
