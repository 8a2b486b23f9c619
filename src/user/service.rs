//! What the register offers.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    HashingPool, PasswordPolicy, StandardPolicy, UpdateUserError, User, UserChange, UserStore,
    VerificationMail, mail::Outbox,
};
use crate::{SharedClock, StoreError, SystemClock, UserId};

/// Registers users, checks their passwords and proves their addresses. Cheap to clone; not a
/// `tower::Service`. See the [module's docs](super).
#[derive(Clone, Debug)]
pub struct UserService {
    pub(super) store: Arc<dyn UserStore>,
    pub(super) hashing: HashingPool,
    pub(super) verification_mail: VerificationMail,
    pub(super) outbox: Outbox,
    pub(super) policy: Arc<dyn PasswordPolicy>,
    pub(super) clock: SharedClock,
    pub(super) verification_ttl: Duration,
}

impl UserService {
    /// A register over this store. New users prove their address within 24 hours, by the link in the
    /// mail that goes into the outbox; passwords follow the [`StandardPolicy`].
    #[must_use]
    pub fn new(
        store: impl UserStore,
        hashing: HashingPool,
        verification_mail: VerificationMail,
        outbox: Outbox,
    ) -> Self {
        Self {
            store: Arc::new(store),
            hashing,
            verification_mail,
            outbox,
            policy: Arc::new(StandardPolicy),
            clock: SystemClock::shared(),
            verification_ttl: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// The same register with other rules for passwords.
    #[must_use]
    pub fn with_policy(self, policy: impl PasswordPolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// The same register by another clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The same register, whose links work for so long.
    #[must_use]
    pub fn with_verification_ttl(self, ttl: Duration) -> Self {
        Self { verification_ttl: ttl, ..self }
    }

    /// The same register, on behalf of a client: whatever tells clients apart, their address, say.
    /// One client can't fill the [queue](HashingPool::for_client) for hashing.
    #[must_use]
    pub fn for_client(&self, client: &str) -> Self {
        Self { hashing: self.hashing.for_client(client), ..self.clone() }
    }

    /// The user of this identifier.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.store.find(id).await
    }

    /// Changes role or plan, and answers the user as it then is.
    ///
    /// # Errors
    /// [`UpdateUserError::NotFound`], [`UpdateUserError::LastAdmin`] where nobody else is a verified
    /// admin, and where the store fails.
    pub async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        self.store.update(id, change).await
    }

    /// How many users there are.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store.count().await
    }
}

/// Does work of several steps to its end, also where the caller stops waiting between them: a
/// client that hangs up must not leave an account without its mail.
pub(super) async fn carry_through<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|panic| Err(StoreError::internal(panic).into()))
}
