//! The contract of a store of refresh tokens.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::{
    Family, FamilyId, Following, Revocations, RevokeReason, Sealed, Session, SessionInfo,
    StoredToken,
};
use crate::{SharedClock, StoreError, SystemClock, TokenHash, UserId, audit::AuditTrail};

/// Where families of refresh tokens are kept: verbs of intent, each atomic.
///
/// - Every verb that writes takes its locks first, in the order user, family, token, then reads,
///   decides by [`judge`](super::judge), and writes. Of many presentations of one token at once exactly
///   one is [`Rotated`](Rotation::Rotated).
/// - The time is read from the given clock after the lock was taken.
/// - What a verb decided is durable when it answers, a revocation for reuse too: the answer
///   `Reused` doesn't roll it back. It is carried through even where the caller stops waiting.
/// - Whatever ends a family tells so in [`revocations`](Self::revocations), at once in this process, and
///   to other processes that share the store within a second; what it tells is written together with
///   what it did.
/// - Tokens that were replaced are kept as long as their family: forget one early, and who presents it is
///   merely unknown.
/// - What fails is a [`StoreError`], soon: unavailable, where trying again may help.
/// - Clones share their state. Nothing but hashes of tokens is ever stored, and, for a moment, a
///   successor that only its parent can [unseal](Sealed).
///
/// ```
/// use std::time::Duration;
/// use tower_warden::{
///     UserId, store::memory::MemoryStore,
///     token::{NewFamily, RefreshToken, RotateRequest, Rotation, TokenStore},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let (week, now) = (Duration::from_secs(7 * 86_400), store.clock().now());
/// let [first, second, third] = [(); 3].map(|()| RefreshToken::random().map(|token| token.hash()));
/// let (first, second, third) = (first?, second?, third?);
///
/// let family = NewFamily::new(UserId::from("ada"), first, now, now + week);
/// let id = family.id.clone();
/// store.open_family(family).await?;
/// let rotate = |presented, successor| {
///     store.rotate(RotateRequest::new(presented, successor, week, store.clock()))
/// };
/// assert_eq!(rotate(first, second).await?, Rotation::Rotated { family: id });
/// assert!(matches!(rotate(first, third).await?, Rotation::Reused { .. })); // ends the family
/// assert_eq!(rotate(second, third).await?, Rotation::Revoked);
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// Opens a family with its first token (generation 0): not, where it names an
    /// [epoch](NewFamily::epoch) and the user is suspended, gone, or in a later one. Where the user has [`NewFamily::at_most`] live ones already, those
    /// that were idle for longest end ([`RevokeReason::Displaced`]).
    ///
    /// Openings of one user, and whatever ends all sessions of that user, happen one after the other.
    async fn open_family(&self, family: NewFamily) -> Result<Opening, StoreError>;

    /// A token and its family, whatever the state of both; `None` for one never seen, or forgotten.
    /// Takes no lock: what is read may be otherwise a moment later.
    async fn find_token(&self, token: &TokenHash) -> Result<Option<PresentedToken>, StoreError>;

    /// Replaces a token by its successor, if it is the live one of its family; answers the sealed
    /// successor, if it was replaced within its leeway; revokes the family if it was replaced before.
    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError>;

    /// Revokes the family of a token, whichever of its generations it is. Answers whether a family that
    /// was not revoked before was found.
    async fn revoke_family(
        &self,
        token: &TokenHash,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<bool, StoreError>;

    /// Revokes all families of a user but the one to keep, and answers how many it revoked one by
    /// one. One that is being rotated meanwhile is revoked with its new token.
    async fn revoke_user(
        &self,
        user: &UserId,
        keep: Option<&FamilyId>,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<u64, StoreError>;

    /// The live families of a user, the last used first.
    async fn sessions(&self, user: &UserId, now: SystemTime) -> Result<Vec<Session>, StoreError> {
        let _ = (user, now);
        Err(StoreError::not_offered("sessions"))
    }

    /// Revokes a family of this user ([`RevokeReason::Ended`]). Answers whether the user has such a
    /// one, and it was live.
    async fn end_session(
        &self,
        user: &UserId,
        family: &FamilyId,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        let _ = (user, family, clock);
        Err(StoreError::not_offered("end_session"))
    }

    /// Replaces the live token of a family that is this user's, without being shown it, and answers
    /// when the family ends, if it does; nothing where it has ended, or is none of the user's.
    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        let _ = request;
        Err(StoreError::not_offered("renew"))
    }

    /// What is known in this process to be revoked. The default knows nothing: access tokens of a
    /// store without it are good until they end.
    fn revocations(&self) -> Revocations {
        Revocations::new()
    }

    /// Follows what other processes revoke in this store, until what it answers is dropped;
    /// [`Following::nothing`], where the store is not shared. What is in force already is known when it
    /// comes back.
    async fn follow_revocations(&self) -> Result<Following, StoreError> {
        Ok(Following::nothing())
    }

    /// The clock of the store, which a service over it takes unless told otherwise.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }

    /// Where events go, for the [audit](crate::audit): a store writes those of its changes itself, in
    /// their transactions; a service over it notes here what is no change of the store.
    fn audit_trail(&self) -> AuditTrail {
        AuditTrail::new()
    }

    /// Forgets revocations that were written before then.
    async fn delete_revocations(&self, before: SystemTime) -> Result<u64, StoreError> {
        let _ = before;
        Ok(0)
    }

    /// Forgets families whose last token ended before `before`: at most so many tokens in one call,
    /// those of a family in steps, if need be. Answers how many; where that is `at_most`, there may be
    /// more. Servers that call it at the same time don't wait for one another, and nobody waits long
    /// for it.
    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
}

/// A family to open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewFamily {
    /// The session's identifier: the `sid` of its access tokens.
    pub id: FamilyId,
    /// Who logged in.
    pub user_id: UserId,
    /// Its first token.
    pub token: TokenHash,
    /// The moment of the login.
    pub created_at: SystemTime,
    /// When the first token ends.
    pub token_expires_at: SystemTime,
    /// When the family ends whatever is refreshed; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// By which methods the user logged in (RFC 8176).
    pub amr: Vec<String>,
    /// From where and with what.
    pub info: SessionInfo,
    /// The epoch of the user's account in which the login began; `None` for users that are kept
    /// elsewhere.
    pub epoch: Option<u64>,
    /// How many live families the user may have, this one included.
    pub at_most: Option<u32>,
}

impl NewFamily {
    /// A family of this user with this first token, opened now.
    #[must_use]
    pub fn new(
        user_id: UserId,
        token: TokenHash,
        created_at: SystemTime,
        token_expires_at: SystemTime,
    ) -> Self {
        Self {
            id: FamilyId::random(),
            user_id,
            token,
            created_at,
            token_expires_at,
            expires_at: None,
            amr: Vec::new(),
            info: SessionInfo::new(),
            epoch: None,
            at_most: None,
        }
    }

    /// The family as it is when it is opened at this epoch.
    #[must_use]
    pub fn family(&self, epoch: u64) -> Family {
        let mut family = Family::new(self.id.clone(), self.user_id.clone(), self.created_at);
        family.expires_at = self.expires_at;
        family.amr.clone_from(&self.amr);
        family.info = self.info.clone();
        family.epoch = epoch;
        family
    }
}

/// What became of a family to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Opening {
    /// It is open.
    Opened {
        /// Access tokens whose `iat` is not after this second are revoked with all others of the
        /// user.
        not_before: Option<SystemTime>,
    },
    /// The user is suspended or gone, or all sessions ended since the login began. Nothing was opened.
    Outdated,
}

/// A token that was presented.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PresentedToken {
    /// Its family. Where all sessions of the user were ended, it is revoked.
    pub family: Family,
    /// The token.
    pub token: StoredToken,
    /// As in [`Opening::Opened`].
    pub not_before: Option<SystemTime>,
}

impl PresentedToken {
    /// A token of a family.
    #[must_use]
    pub fn new(family: Family, token: StoredToken) -> Self {
        Self { family, token, not_before: None }
    }
}

/// A token to replace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RotateRequest {
    /// What was presented.
    pub presented: TokenHash,
    /// What replaces it.
    pub successor: TokenHash,
    /// How long the successor lives.
    pub time_to_live: Duration,
    /// What time it is, once the family is locked.
    pub clock: SharedClock,
    /// From where and with what; what is not known stays as it was.
    pub info: SessionInfo,
    /// The successor, sealed, and for how long.
    pub sealing: Option<Sealing>,
}

/// A successor to keep for who presents its parent again.
#[derive(Clone)]
#[non_exhaustive]
pub struct Sealing {
    /// The successor as only its parent can read it: a store keeps it as it is.
    pub bytes: Box<[u8]>,
    /// For how long after the rotation the parent may be presented again.
    pub leeway: Duration,
}

impl Sealing {
    /// This sealed successor, for so long.
    #[must_use]
    pub fn new(bytes: impl Into<Box<[u8]>>, leeway: Duration) -> Self {
        Self { bytes: bytes.into(), leeway }
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("leeway", &self.leeway).finish_non_exhaustive()
    }
}

impl RotateRequest {
    /// A token to replace by this one, which lives for so long.
    #[must_use]
    pub fn new(
        presented: TokenHash,
        successor: TokenHash,
        time_to_live: Duration,
        clock: SharedClock,
    ) -> Self {
        let (info, sealing) = (SessionInfo::new(), None);
        Self { presented, successor, time_to_live, clock, info, sealing }
    }
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
    /// The family, with the session as it is now.
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
#[non_exhaustive]
pub enum Rotation {
    /// It was replaced.
    Rotated {
        /// In which family.
        family: FamilyId,
    },
    /// It had been replaced a moment ago, and its successor is still unused: that is to be answered
    /// again.
    Replayed {
        /// In which family.
        family: FamilyId,
        /// The successor.
        successor: Sealed,
        /// When the successor ends.
        expires_at: SystemTime,
    },
    /// It had been replaced before; its family is revoked now.
    Reused {
        /// The family that ended.
        family: FamilyId,
        /// The user who had logged in.
        user_id: UserId,
    },
    /// It, or its family, is past its time.
    Expired,
    /// Its family had been revoked before.
    Revoked,
    /// No such token.
    Unknown,
}
