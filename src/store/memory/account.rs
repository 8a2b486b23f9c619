//! The one state behind accounts.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    api_key::ApiKeys,
    audit::{Events, Writer},
    second_factor::{PendingLogins, SecondFactors},
    token::Sessions,
    user::Register,
};
use crate::{
    SharedClock, SystemClock,
    audit::{AuditEvent, AuditTrail},
    token::Revocations,
};

/// Accounts, sessions, API keys and second factors in this process, gone when it ends. For tests,
/// examples, and single servers whose users don't mind to register again.
///
/// Clones share their state. It grows with the users, with the sessions that are live, and with how
/// often each was refreshed; nothing is dropped to make room, because that would end a session. What
/// has ended stays until `delete_expired_…` of the contracts is called.
///
/// One lock is around all of it. A login, a refresh or a change looks at one user and that user's
/// sessions; to list users or change an admin looks through all users, to clean up through all there is.
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
    pub(super) audit: AuditTrail,
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
    pub(super) events: Events,
    /// What was done since the state was locked.
    pub(super) noted: Vec<AuditEvent>,
}

/// The state, for one verb: what it notes is written down when it ends, and told to others after that.
pub(super) struct Locked<'a> {
    // In the order in which they are dropped.
    state: MutexGuard<'a, State>,
    told: Told<'a>,
}

/// What others hear of once the state is free again.
struct Told<'a> {
    events: Vec<AuditEvent>,
    audit: &'a AuditTrail,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let (state, audit) = (Arc::default(), AuditTrail::new());
        Self { state, clock: SystemClock::shared(), audit }
    }

    /// Where time comes from: the machine's clock unless set.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// Writes down who does what, in the way of this trail: under the same lock as the change, if it has
    /// a [table](AuditTrail::with_table), which keeps the last 10,000 events.
    #[must_use]
    pub fn with_audit(self, trail: AuditTrail) -> Self {
        let audit = trail.written_by(Writer(Arc::clone(&self.state)));
        Self { audit, ..self }
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// Never held across an `await`. What looks through everything under it is the clean-up, and the list
    /// of users.
    pub(super) fn lock(&self) -> Locked<'_> {
        let told = Told { events: Vec::new(), audit: &self.audit };
        Locked { state: lock(&self.state), told }
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let noted = std::mem::take(&mut self.state.noted);
        if self.told.audit.has_table() {
            self.state.events.extend(&noted);
        }
        self.told.events = noted;
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.events.iter().for_each(|event| self.audit.tell(event));
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}
