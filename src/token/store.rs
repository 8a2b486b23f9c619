//! The contract of a store of refresh tokens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{Family, FamilyId};
use crate::{SharedClock, StoreError, TokenHash, UserId};

/// Where families of refresh tokens are kept: verbs of intent, each atomic.
///
/// - Every verb that writes takes the family's lock first, then reads, decides by
///   [`judge`](super::judge), and writes. Of many presentations of one token at once exactly one is
///   [`Rotated`](Rotation::Rotated).
/// - The time is read from the given clock after the lock was taken.
/// - What a verb decided is durable when it answers, a revocation for reuse too: the answer
///   `Reused` doesn't roll it back. It is carried through even where the caller stops waiting.
/// - Tokens that were replaced are kept as long as their family: forget one early, and who presents it is
///   merely unknown.
/// - Clones share their state. Nothing but hashes of tokens is ever stored.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// Opens a family with its first token (generation 0), and answers whether it did: not, where it
    /// names an [epoch](NewFamily::epoch) and the user is suspended, gone, or in a later one.
    async fn open_family(&self, family: NewFamily) -> Result<bool, StoreError>;

    /// The family of a token, whatever the state of both; `None` for one never seen, or forgotten.
    async fn family(&self, token: &TokenHash) -> Result<Option<Family>, StoreError>;

    /// Replaces a token by its successor, if it is the live one of its family; revokes the family
    /// if it was replaced before.
    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError>;

    /// Replaces the live token of a family that is this user's, without being shown it, and answers
    /// when the family ends, if it does; nothing where it has ended, or is none of the user's.
    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        let _ = request;
        Err(StoreError::not_offered("renew"))
    }

    /// Revokes the family of a token, whichever of its generations it is ([`RevokeReason::Logout`]).
    /// Answers whether a family that was not revoked before was found.
    ///
    /// [`RevokeReason::Logout`]: super::RevokeReason::Logout
    async fn revoke_family(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<bool, StoreError>;

    /// Revokes all families of a user ([`RevokeReason::LogoutAll`]), and answers how many. One that
    /// is being rotated meanwhile is revoked with its new token.
    ///
    /// [`RevokeReason::LogoutAll`]: super::RevokeReason::LogoutAll
    async fn revoke_user(&self, user: &UserId, clock: &SharedClock) -> Result<u64, StoreError>;

    /// Forgets families whose last token ended before `before`, at most so many in one call, and
    /// answers how many. Servers that call it at the same time don't wait for one another.
    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
}

/// A family to open.
#[derive(Clone, Debug)]
pub struct NewFamily {
    /// Which.
    pub id: FamilyId,
    /// Whose.
    pub user_id: UserId,
    /// Its first token.
    pub token: TokenHash,
    /// The moment of the login.
    pub created_at: SystemTime,
    /// When the first token ends.
    pub token_expires_at: SystemTime,
    /// When the family ends whatever is refreshed; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// The epoch of the user's account in which the login began; `None` for users that are kept
    /// elsewhere.
    pub epoch: Option<u64>,
}

/// A token to replace.
#[derive(Clone, Debug)]
pub struct RotateRequest {
    /// What was presented.
    pub presented: TokenHash,
    /// What replaces it.
    pub successor: TokenHash,
    /// How long the successor lives.
    pub time_to_live: Duration,
    /// What time it is, once the family is locked.
    pub clock: SharedClock,
}

/// A family whose live token is to be replaced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewRequest {
    /// The family.
    pub family: FamilyId,
    /// The user whose it must be.
    pub user_id: UserId,
    /// What replaces its live token.
    pub successor: TokenHash,
    /// How long the successor lives.
    pub time_to_live: Duration,
    /// What time it is, once the family is locked.
    pub clock: SharedClock,
}

impl RenewRequest {
    /// This successor in this family of this user.
    #[must_use]
    pub fn new(
        family: FamilyId,
        user_id: UserId,
        successor: TokenHash,
        time_to_live: Duration,
        clock: SharedClock,
    ) -> Self {
        Self { family, user_id, successor, time_to_live, clock }
    }
}

/// A family whose live token was replaced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Renewed {
    /// It.
    pub family: Family,
    /// When its new token ends.
    pub token_expires_at: SystemTime,
}

impl Renewed {
    /// This family, whose new token ends then.
    #[must_use]
    pub fn new(family: Family, token_expires_at: SystemTime) -> Self {
        Self { family, token_expires_at }
    }
}

/// What became of a presented token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was replaced.
    Rotated {
        /// In which family.
        family: FamilyId,
    },
    /// It had been replaced before; its family is revoked now.
    Reused {
        /// Which family.
        family: FamilyId,
        /// Whose.
        user_id: UserId,
    },
    /// It, or its family, is past its time.
    Expired,
    /// Its family had been revoked before.
    Revoked,
    /// No such token.
    Unknown,
}

#[async_trait]
impl<S: TokenStore + ?Sized> TokenStore for Arc<S> {
    async fn open_family(&self, family: NewFamily) -> Result<bool, StoreError> {
        (**self).open_family(family).await
    }

    async fn family(&self, token: &TokenHash) -> Result<Option<Family>, StoreError> {
        (**self).family(token).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        (**self).rotate(request).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        (**self).renew(request).await
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        (**self).revoke_family(token, clock).await
    }

    async fn revoke_user(&self, user: &UserId, clock: &SharedClock) -> Result<u64, StoreError> {
        (**self).revoke_user(user, clock).await
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        (**self).delete_expired_sessions(before, at_most).await
    }
}
