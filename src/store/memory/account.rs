//! The one state behind accounts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    api_key::ApiKeys,
    second_factor::{PendingLogins, SecondFactors},
    token::Sessions,
    user::Register,
};
use crate::{SharedClock, SystemClock, token::Revocations};

/// Users and their sessions in this process, gone when it ends. For tests, examples, and single
/// servers whose users don't mind to register again.
///
/// Clones share their state. It grows with the users, with the sessions that are live, and with how
/// often each was refreshed; nothing is dropped to make room, because that would end a session. What
/// has ended stays until `delete_expired_…` of the contracts is called.
///
/// ```
/// use tower_warden::{Identity, Role, TokenService, UserService, store::memory::MemoryStore};
/// use tower_warden::{token::{KeySet, SigningKey}, user::{BcryptHasher, HashingPool, Password}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One store for accounts and sessions, so that what concerns both happens at once.
/// let store = MemoryStore::new();
/// let users = UserService::without_mail(store.clone(), HashingPool::new(BcryptHasher::new(4)?)?);
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", store);
///
/// let ada = users.create_verified("ada@example.com", Password::from("Correct-Horse-1"), Role::EDITOR).await?;
/// let pair = tokens.issue(&Identity::from(&ada)).await?;
/// users.suspend(&ada.id).await?;
/// assert!(tokens.verify(pair.access_token()).is_err());
/// assert!(tokens.sessions(&ada.id).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    pub(super) clock: SharedClock,
}

/// One lock for all of it, so that what concerns a user and the user's sessions happens at once.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) register: Register,
    pub(super) sessions: Sessions,
    pub(super) revocations: Revocations,
    /// How much was told to be revoked.
    pub(super) told: u64,
    pub(super) api_keys: ApiKeys,
    pub(super) second_factors: SecondFactors,
    pub(super) pending_logins: PendingLogins,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default(), clock: SystemClock::shared() }
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

    /// Nothing that is done under it takes long.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}
