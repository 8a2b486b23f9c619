//! The contract of a store of users.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::{
    Email, EnsuredAdmin, InvalidEmail, LinkToken, NewUser, PasswordChange, PasswordHash,
    PasswordSet, User, UserChange, UserChanged, UserPage,
};
use crate::{SharedClock, StoreError, SystemClock, TokenHash, UserId, audit::AuditTrail};

/// Where users are kept: verbs of intent, each atomic.
///
/// - An address is one account, also when many register it at once: uniqueness is the store's, not
///   the caller's. An account that was not verified before its link ended holds its address no
///   longer: whoever registers it next takes it over, as a new account.
/// - The last [active admin](User::is_active_admin) stays one, also when two of them are demoted,
///   suspended or deleted at once. Whether who acts may is judged in the same transaction.
/// - A token of a link is consumed once, and by the verb of its purpose only. Each user has at most
///   one of each purpose; a new one replaces it.
/// - The verbs that set a password, suspend or delete a user end the user's sessions in the same
///   transaction, where the store keeps those too, and add one to the [epoch](User::epoch), so that a
///   login that began before opens none. API keys end with suspension and deletion.
/// - Locks are taken in the order user, session, token; the time is read after the lock was taken.
/// - What a verb wrote is durable when it answers, and is carried through even where the caller
///   stops waiting.
/// - What fails is a [`StoreError`], soon: unavailable, where trying again may help.
/// - Clones share their state. A store knows no password rule and no HTTP.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{
///     OpaqueToken, store::memory::MemoryStore,
///     user::{CreateUserError, Email, LinkToken, NewUser, PasswordHash, UserStore},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (store, now) = (MemoryStore::new(), SystemTime::now());
/// let link = OpaqueToken::<32>::random()?.hash();
/// let ada = || -> Result<NewUser, Box<dyn std::error::Error>> {
///     let hash = PasswordHash::from("$2b$12$…".to_owned());
///     let user = NewUser::new(Email::parse("ada@example.com")?, hash, now);
///     Ok(user.with_verification(LinkToken::new(link, now, Duration::from_secs(3600))))
/// };
/// assert!(!store.create(ada()?).await?.email_verified);
/// assert!(matches!(store.create(ada()?).await, Err(CreateUserError::EmailTaken)));
///
/// assert!(store.verify_email(&link, now).await?.is_some_and(|user| user.email_verified));
/// assert!(store.verify_email(&link, now).await?.is_none()); // a link works once
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait UserStore: fmt::Debug + Send + Sync + 'static {
    /// Where time comes from; a [`UserService`](super::UserService) takes its clock from here.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }

    /// Where events go, for the [audit](crate::audit): a store writes those of its changes itself, in
    /// their transactions; a [`UserService`](super::UserService) notes here what it refused.
    fn audit_trail(&self) -> AuditTrail {
        AuditTrail::new()
    }

    /// Adds a user, and the verification token that will be mailed, together. An account that holds
    /// its address [no longer](UserStore) at `user.created_at` is deleted.
    async fn create(&self, user: NewUser) -> Result<User, CreateUserError>;

    /// The user of this identifier.
    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError>;

    /// The user of this address, and the hash to check a password against.
    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError>;

    /// Who holds an address now: not an account whose link ended before it was verified.
    async fn find_holder(
        &self,
        email: &Email,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        let _ = now;
        Ok(self.find_by_email(email).await?.map(|(user, _)| user))
    }

    /// The user of this identifier, and the hash to check a password against.
    async fn find_with_hash(
        &self,
        id: &UserId,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        let _ = id;
        Err(StoreError::not_offered("find_with_hash"))
    }

    /// A page of all users, the newest first; of those made at the same time, the greatest
    /// identifier.
    async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        let _ = page;
        Err(StoreError::not_offered("list"))
    }

    /// Changes role, plan or suspension, and answers the user as it then is.
    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError>;

    /// The same, and answers the user as it was before, too. It is what takes a second factor off.
    async fn change(
        &self,
        id: &UserId,
        change: UserChange,
    ) -> Result<UserChanged, UpdateUserError> {
        if change.second_factor_off {
            return Err(StoreError::not_offered("change").into());
        }
        let user = self.update(id, change).await?;
        Ok(UserChanged::new(user.clone(), user))
    }

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
        token: LinkToken,
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

    /// Gives a user a reset token in place of the old one, and answers the user; nothing where there
    /// is none, or who there is is suspended, or the last token was made less than `at_most_every`
    /// before `token.created_at`, also where it was used or ended since.
    async fn put_reset(
        &self,
        id: &UserId,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let _ = (id, token, at_most_every);
        Err(StoreError::not_offered("put_reset"))
    }

    /// Whose password a reset token would set now; changes nothing.
    async fn find_reset(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let _ = (token, now);
        Err(StoreError::not_offered("find_reset"))
    }

    /// Consumes a reset token: the password is set, the address verified, every session and what is
    /// pending ends. Nothing where the token is unknown, used, replaced or past its time.
    async fn reset_password(
        &self,
        token: &TokenHash,
        new: &PasswordHash,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        let _ = (token, new, clock);
        Err(StoreError::not_offered("reset_password"))
    }

    /// Sets a password, if the account is in the same epoch still, and may be used; ends all sessions
    /// but the one that is to be kept, and the reset and the change of address that are pending. Else
    /// nothing.
    async fn change_password(
        &self,
        change: &PasswordChange,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        let _ = (change, clock);
        Err(StoreError::not_offered("change_password"))
    }

    /// Notes the address that a user wants, in place of one noted before, until its token is
    /// presented. Answers the user; nothing where the last one was noted less than `at_most_every`
    /// before `token.created_at`.
    async fn put_email_change(
        &self,
        id: &UserId,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, EmailChangeError> {
        let _ = (id, email, token, at_most_every);
        Err(StoreError::not_offered("put_email_change").into())
    }

    /// Consumes the token of a change of address: the address is the user's, verified, and the reset
    /// token that is out ends. Sessions stay. An address that was taken meanwhile uses it up too.
    async fn confirm_email_change(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<User, EmailChangeError> {
        let _ = (token, clock);
        Err(StoreError::not_offered("confirm_email_change").into())
    }

    /// Deletes a user, and all that is the user's. `by` is who does it, where it is not the user.
    async fn delete(
        &self,
        id: &UserId,
        by: Option<&UserId>,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        let _ = (id, by, clock);
        Err(StoreError::not_offered("delete").into())
    }

    /// The same by the user, while the account is in this [epoch](User::epoch): later on the password that
    /// was asked for is no longer the user's.
    async fn delete_in_epoch(
        &self,
        id: &UserId,
        epoch: u64,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        let _ = (id, epoch, clock);
        Err(StoreError::not_offered("delete_in_epoch").into())
    }

    /// Sees to it that an address has a verified admin: creates `admin`; promotes a verified user,
    /// who keeps the password; gives an account that was never verified, and is nobody's, this
    /// password, and ends its links and sessions. Nothing is done for a suspended one, which is
    /// answered as it is.
    async fn ensure_admin(
        &self,
        admin: &NewUser,
        clock: &SharedClock,
    ) -> Result<(User, EnsuredAdmin), StoreError> {
        let _ = (admin, clock);
        Err(StoreError::not_offered("ensure_admin"))
    }

    /// How many users there are.
    async fn count(&self) -> Result<u64, StoreError>;

    /// Forgets tokens of links that ended before `before`, at most so many in one call, and
    /// answers how many. Servers that call it at the same time don't wait for one another.
    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
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
    /// The user is the last active admin, and would be one no more.
    #[error("the last admin must stay")]
    LastAdmin,
    /// Who acts is no active admin, or not any more.
    #[error("who acts is no admin")]
    NotAllowed,
    /// The password was changed since it was checked.
    #[error("the password was changed meanwhile")]
    Outdated,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an address was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmailChangeError {
    /// The token is unknown, used, replaced by a later one, or past its time.
    #[error("invalid or expired email token")]
    InvalidToken,
    /// The address has an account.
    #[error("the address has an account already")]
    EmailTaken,
    /// The user has this address.
    #[error("the address is the user's own")]
    OwnEmail,
    /// This is no address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// No such user, or one who is suspended.
    #[error("no such user")]
    NotFound,
    /// The password was changed since it was checked.
    #[error("the password was changed meanwhile")]
    Outdated,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
