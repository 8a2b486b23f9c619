//! The contract of a store of API keys.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::{ApiKey, ApiKeyId, CreateKeyError, FoundKey, NewApiKey};
use crate::{SharedClock, StoreError, SystemClock, TokenHash, UserId, clock::later};

/// Where API keys are kept: verbs of intent, each atomic.
///
/// - A store knows the owners too, or asks who does: it answers who the owner of a key is *now*. The
///   verbs that suspend or delete a user revoke the user's keys in the same transaction; keys of one
///   who comes back stay revoked.
/// - An owner never has more keys than the cap, also when many are made at once. A key made while its
///   owner is suspended or deleted is not made, or is revoked with the others.
/// - Keys that were revoked are found, and not listed, until they are deleted.
/// - What fails is a [`StoreError`], soon: unavailable, where trying again may help.
/// - What a verb wrote is durable when it answers, and is carried through even where the caller stops
///   waiting. Clones share their state. Nothing but the hash of a key is ever stored.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{
///     Role, TokenHash, api_key::{ApiKey, ApiKeyId, ApiKeyStore, KeyUse, NewApiKey},
/// };
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (store, now) = (MemoryStore::new(), SystemTime::now());
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let owner = store.create(NewUser::new(Email::parse("ada@example.com")?, hash, now)).await?.id;
/// let hash = TokenHash::of("wdn_…");
/// let key = ApiKey::new(ApiKeyId::random(), owner.clone(), "backup".into(), "wdn_".into(), Role::VIEWER, now);
/// let id = key.id.clone();
/// store.create_key(NewApiKey::new(key, hash), 5).await?; // five at most
///
/// let used = KeyUse::new(hash, now, Duration::from_secs(60));
/// assert!(!store.find_key(used).await?.ok_or("no such key")?.revoked);
/// assert_eq!(store.revoke_key(&owner, &id, now).await?, Some(hash));
/// assert!(store.find_key(used).await?.ok_or("no such key")?.revoked); // found, so that its holder is told
/// assert!(store.list_keys(&owner).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait ApiKeyStore: fmt::Debug + Send + Sync + 'static {
    /// Where time comes from; an [`ApiKeyService`](super::ApiKeyService) takes its clock from here.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }

    /// Adds a key, unless its owner has `at_most` already, expired ones included, but not those that
    /// were revoked ([`CreateKeyError::TooMany`]), or is gone or suspended
    /// ([`CreateKeyError::NoOwner`]).
    async fn create_key(&self, key: NewApiKey, at_most: u32) -> Result<(), CreateKeyError>;

    /// The key of this hash, whatever its state, and who its owner is; `None` for one never seen, or
    /// forgotten.
    ///
    /// Notes the use, if the key is good and the last use noted is longer ago than
    /// [`KeyUse::noted_every`]; the key is answered with it. Where only that fails, the answer
    /// stands.
    async fn find_key(&self, used: KeyUse) -> Result<Option<FoundKey>, StoreError>;

    /// The keys of this user that were not revoked, the newest first.
    async fn list_keys(&self, owner: &UserId) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key of this user, and answers its hash; `None` where the user has no such key, or it
    /// was revoked before.
    async fn revoke_key(
        &self,
        owner: &UserId,
        id: &ApiKeyId,
        now: SystemTime,
    ) -> Result<Option<TokenHash>, StoreError>;

    /// Revokes all keys of this user, and answers how many.
    async fn revoke_all_keys(&self, owner: &UserId, now: SystemTime) -> Result<u64, StoreError>;

    /// Forgets keys that were revoked before `before`, at most so many in one call, and answers how
    /// many. Servers that call it at the same time don't wait for one another.
    async fn delete_revoked_keys(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
}

/// A key that was presented.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{
///     Identity, Role, TokenHash, UserId,
///     api_key::{ApiKey, ApiKeyId, FoundKey, KeyUse},
/// };
/// # let (id, ada, made) = (ApiKeyId::random(), UserId::from("ada"), SystemTime::now());
/// # let owner = Some(Identity::new(ada.clone(), Role::VIEWER));
/// # let key = ApiKey::new(id, ada, "backup".into(), "wdn_3f8s".into(), Role::VIEWER, made);
/// # let mut found = FoundKey::new(key, false, owner);
/// // What a store does with its `found: FoundKey`:
/// let used = KeyUse::new(TokenHash::of("wdn_3f8s…"), made, Duration::from_secs(60));
/// assert!(used.is_noted(&found));
/// found.key.last_used_at = Some(used.at);
/// assert!(!used.is_noted(&found)); // not again within the minute
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KeyUse {
    /// The hash of what was presented.
    pub hash: TokenHash,
    /// When it was presented.
    pub at: SystemTime,
    /// How old the last use noted may be before this one is.
    pub noted_every: Duration,
}

impl KeyUse {
    /// A key presented at that time.
    #[must_use]
    pub fn new(hash: TokenHash, at: SystemTime, noted_every: Duration) -> Self {
        Self { hash, at, noted_every }
    }

    /// Whether this use of a key is one to note.
    #[must_use]
    pub fn is_noted(&self, found: &FoundKey) -> bool {
        let due = |last: SystemTime| later(last, self.noted_every) <= self.at;
        !found.revoked
            && found.owner.is_some()
            && !found.key.is_expired(self.at)
            && found.key.last_used_at.is_none_or(due)
    }
}
