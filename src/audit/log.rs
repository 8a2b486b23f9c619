//! [`AuditLog`]: reading what was kept.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::AuditEvent;
use crate::{StoreError, UserId};

/// The table of events, as auditors read it. The account stores are one, where their
/// [`AuditTrail`](super::AuditTrail) has a [table](super::AuditTrail::with_table).
///
/// ```
/// use tower_warden::{
///     audit::{Act, AuditFilter, AuditLog, AuditTrail},
///     store::memory::MemoryStore,
///     user::{Email, NewUser, PasswordHash, UserStore},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let accounts = MemoryStore::new().with_audit(AuditTrail::new().with_table());
/// # let hash = PasswordHash::from("$2b$…".to_owned());
/// # let now = accounts.clock().now();
/// let ada = accounts.create(NewUser::new(Email::parse("ada@example.com")?, hash, now)).await?;
/// accounts.delete(&ada.id, None, &accounts.clock()).await?;
///
/// // Who did what to this account, the latest first.
/// let events = accounts.events(&AuditFilter::new(50).about(&ada.id)).await?;
/// assert_eq!([&events[0].act, &events[1].act], [&Act::DELETED, &Act::REGISTERED]);
/// # Ok(()) }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait AuditLog: fmt::Debug + Send + Sync + 'static {
    /// The events that this filter lets pass, the last written first. What was refused is written
    /// apart, and so perhaps a moment later than what came after it: its time is right.
    async fn events(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>, StoreError>;

    /// Forgets events that are older than `before`, at most so many in one call, and answers how many.
    /// To be called now and then, again at once where it answers `at_most`. Servers that call it at the
    /// same time don't wait for one another.
    async fn delete_events(&self, before: SystemTime, at_most: u32) -> Result<u64, StoreError>;
}

/// Which events to read.
///
/// ```
/// use tower_warden::{StoreError, UserId, audit::{AuditFilter, AuditLog}};
///
/// /// All that happened to an account, page after page, the newest first.
/// async fn history(log: &impl AuditLog, user: &UserId) -> Result<usize, StoreError> {
///     let (mut page, mut seen) = (AuditFilter::new(100).about(user), 0);
///     loop {
///         let events = log.events(&page).await?;
///         seen += events.len();
///         match events.last() {
///             Some(last) => page = page.after(last),
///             None => return Ok(seen),
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditFilter {
    /// How many, at most.
    pub limit: u32,
    /// Of this account only: what was done to it, and what its user or keys did.
    pub user: Option<UserId>,
    /// Those written before this one: the [`id`](AuditEvent::id) of the last event of the page before.
    pub before: Option<u64>,
}

impl AuditFilter {
    /// The latest events, so many at most.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, user: None, before: None }
    }

    /// The same, of this account only: what was done to it, and what it did.
    #[must_use]
    pub fn about(self, user: &UserId) -> Self {
        Self { user: Some(user.clone()), ..self }
    }

    /// The same, behind this event.
    #[must_use]
    pub fn after(self, last: &AuditEvent) -> Self {
        Self { before: last.id, ..self }
    }
}
