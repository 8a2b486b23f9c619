//! The contract of a store of users.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{Email, PasswordHash, User};
use crate::{Plan, Role, StoreError, TokenHash, UserId};

/// Where users are kept: verbs of intent, each atomic.
///
/// - An address is one account, also when many register it at once: uniqueness is the store's, not
///   the caller's.
/// - The last verified user with [`Role::ADMIN`](crate::Role::ADMIN) keeps it, also when two of them
///   are demoted at once.
/// - A verification token is consumed once. Each user has at most one; a new one replaces it.
/// - What a verb wrote is durable when it answers, and is carried through even where the caller
///   stops waiting.
/// - Clones share their state. A store knows no password rule and no HTTP.
#[async_trait]
pub trait UserStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a user, and the verification token that will be mailed, together.
    async fn create(&self, user: NewUser) -> Result<User, CreateUserError>;

    /// The user of this identifier.
    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError>;

    /// The user of this address, and the hash to check a password against.
    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError>;

    /// Changes role or plan, and answers the user as it then is.
    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError>;

    /// Puts a new password hash in place of the old one, if the old one still stands; answers
    /// whether it did.
    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError>;

    /// Gives the user of this address a new verification token in place of the old one, and
    /// answers the user; nothing where there is none, or the address is verified already, or the
    /// last token was made less than `at_most_every` before `token.created_at`.
    async fn renew_verification(
        &self,
        email: &Email,
        token: VerificationToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError>;

    /// Whose address a verification token would verify now; changes nothing.
    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError>;

    /// Consumes a verification token: its user's address is verified. Nothing where it is unknown,
    /// used, replaced, or past its time (`now >= expires_at`).
    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError>;

    /// How many users there are.
    async fn count(&self) -> Result<u64, StoreError>;

    /// Forgets verification tokens that ended before `before`, at most so many in one call, and
    /// answers how many. Servers that call it at the same time don't wait for one another.
    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
}

#[async_trait]
impl<S: UserStore + ?Sized> UserStore for Arc<S> {
    async fn create(&self, user: NewUser) -> Result<User, CreateUserError> {
        (**self).create(user).await
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        (**self).find(id).await
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        (**self).find_by_email(email).await
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        (**self).update(id, change).await
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        (**self).replace_password_hash(id, old, new).await
    }

    async fn renew_verification(
        &self,
        email: &Email,
        token: VerificationToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        (**self).renew_verification(email, token, at_most_every).await
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        (**self).find_verification(token, now).await
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        (**self).verify_email(token, now).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        (**self).count().await
    }

    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        (**self).delete_expired_links(before, at_most).await
    }
}

/// A user to add.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Which: usually [`UserId::random`].
    pub id: UserId,
    /// The canonical address.
    pub email: Email,
    /// What will be checked at login.
    pub password_hash: PasswordHash,
    /// What the user may do.
    pub role: Role,
    /// The moment of the registration.
    pub created_at: SystemTime,
    /// What proves the address; `None` for one that is known to be genuine.
    pub verification: Option<VerificationToken>,
}

/// What a store keeps of a token that proves an address.
#[derive(Clone, Copy, Debug)]
pub struct VerificationToken {
    /// The hash of the token that was mailed.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it is worth nothing.
    pub expires_at: SystemTime,
}

/// What to change of a user; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserChange {
    /// The new role.
    pub role: Option<Role>,
    /// The new plan; `Some(None)` takes the plan away.
    pub plan: Option<Option<Plan>>,
    /// Whether to take the address as verified from now on.
    pub verify_email: bool,
}

/// Why a user could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateUserError {
    /// The address has an account.
    #[error("the address has an account already")]
    EmailTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a user could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateUserError {
    /// No such user.
    #[error("no such user")]
    NotFound,
    /// The user is the last verified admin, and would be one no more.
    #[error("the last admin must stay")]
    LastAdmin,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
