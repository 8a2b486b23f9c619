//! The contract of a store of users.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::{Email, InvalidEmail, PasswordHash, User};
use crate::{Plan, Role, SharedClock, StoreError, SystemClock, TokenHash, UserId};

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
/// - Clones share their state. A store knows no password rule and no HTTP.
#[async_trait]
#[auto_impl(Arc)]
pub trait UserStore: fmt::Debug + Send + Sync + 'static {
    /// Where time comes from; a [`UserService`](super::UserService) takes its clock from here.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
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
    /// but the one that is to be kept, and the reset token that is out. Else nothing.
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

/// A user to add.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewUser {
    /// The identifier: usually [`UserId::random`].
    pub id: UserId,
    /// The canonical address.
    pub email: Email,
    /// What a password is checked against at login.
    pub password_hash: PasswordHash,
    /// What the user may do.
    pub role: Role,
    /// The moment of the registration.
    pub created_at: SystemTime,
    /// What proves the address; `None` for one that is known to be genuine.
    pub verification: Option<LinkToken>,
}

impl NewUser {
    /// A viewer of a random identifier, whose address is known to be genuine.
    #[must_use]
    pub fn new(email: Email, password_hash: PasswordHash, created_at: SystemTime) -> Self {
        let (id, role) = (UserId::random(), Role::VIEWER);
        Self { id, email, password_hash, role, created_at, verification: None }
    }

    /// The same user by this identifier.
    #[must_use]
    pub fn with_id(self, id: UserId) -> Self {
        Self { id, ..self }
    }

    /// The same user in this role.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The same user, whose address is still to be proved.
    #[must_use]
    pub fn with_verification(self, token: LinkToken) -> Self {
        Self { verification: Some(token), ..self }
    }
}

/// What a store keeps of a token that was mailed in a link.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LinkToken {
    /// The hash of the token that was mailed.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it is worth nothing.
    pub expires_at: SystemTime,
}

impl LinkToken {
    /// A token made then that lives so long.
    #[must_use]
    pub fn new(hash: TokenHash, created_at: SystemTime, time_to_live: Duration) -> Self {
        Self { hash, created_at, expires_at: created_at + time_to_live }
    }
}

impl LinkToken {
    /// For so long after it was made a store keeps one that was used or ended, because the next one
    /// may not be made at once.
    pub(crate) const KEPT: Duration = Duration::from_secs(60 * 60);

    pub(crate) fn is_over(&self, now: SystemTime) -> bool {
        self.created_at + Self::KEPT < now
    }
}

/// What to change of a user; what is `None` stays.
///
/// ```
/// use tower_warden::{Plan, Role, UserId, user::UserChange};
/// let admin = UserId::from("7");
/// let change = UserChange::new().with_role(Role::EDITOR).with_plan(Some(Plan::PAID)).by(&admin);
/// assert_eq!((change.role, change.suspended), (Some(Role::EDITOR), None));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct UserChange {
    /// The new role.
    pub role: Option<Role>,
    /// The new plan; `Some(None)` takes the plan away.
    pub plan: Option<Option<Plan>>,
    /// Whether the account may be used. One that may no longer be used loses its sessions, keys and
    /// links, which don't come back with it.
    pub suspended: Option<bool>,
    /// Whether to take the address as verified from now on.
    pub verify_email: bool,
    /// Who does it, and must be an active admin at that moment; `None`: the program itself.
    pub by: Option<UserId>,
}

impl UserChange {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same change, and this role.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role: Some(role), ..self }
    }

    /// The same change, and this plan, or none.
    #[must_use]
    pub fn with_plan(self, plan: Option<Plan>) -> Self {
        Self { plan: Some(plan), ..self }
    }

    /// The same change, and the account may no longer be used, or may again.
    #[must_use]
    pub fn with_suspended(self, suspended: bool) -> Self {
        Self { suspended: Some(suspended), ..self }
    }

    /// The same change, and the address is taken as verified.
    #[must_use]
    pub fn with_verified_email(self) -> Self {
        Self { verify_email: true, ..self }
    }

    /// The same change, if this user is an active admin when it is made.
    #[must_use]
    pub fn by(self, admin: &UserId) -> Self {
        Self { by: Some(admin.clone()), ..self }
    }
}

/// A password to set in place of another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PasswordChange {
    /// Whose password.
    pub id: UserId,
    /// The epoch in which the current password was checked.
    pub epoch: u64,
    /// The hash of the new one.
    pub new: PasswordHash,
    /// The session (`sid`) that goes on.
    pub keep: Option<Box<str>>,
}

impl PasswordChange {
    /// A new password for this user, as it was when the current one was checked. It ends all
    /// sessions.
    #[must_use]
    pub fn new(checked: &User, new: PasswordHash) -> Self {
        Self { id: checked.id.clone(), epoch: checked.epoch, new, keep: None }
    }

    /// The same, but for this session (`sid`), which goes on.
    #[must_use]
    pub fn keeping(self, session: &str) -> Self {
        Self { keep: Some(session.into()), ..self }
    }
}

/// A password was set.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PasswordSet {
    /// Whose it is.
    pub user: User,
    /// How many API keys of the user are good as before.
    pub api_keys: u64,
}

impl PasswordSet {
    /// A password of this user, who has so many API keys.
    #[must_use]
    pub fn new(user: User, api_keys: u64) -> Self {
        Self { user, api_keys }
    }
}

/// How an admin came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnsuredAdmin {
    /// As a new user.
    Created,
    /// As a verified user, who had another role.
    Promoted,
    /// As an account that was never verified, which was taken over.
    TakenOver,
    /// A verified admin was there.
    Unchanged,
    /// Not at all: the account is suspended.
    Suspended,
}

impl EnsuredAdmin {
    /// What becomes of a user who is there.
    pub(crate) fn of(user: &User) -> Self {
        match user {
            User { suspended: true, .. } => Self::Suspended,
            User { email_verified: false, .. } => Self::TakenOver,
            User { role, .. } if *role == Role::ADMIN => Self::Unchanged,
            _ => Self::Promoted,
        }
    }
}

/// Which users to list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UserPage {
    /// How many, at most.
    pub limit: u32,
    /// The last one of the page before.
    pub after: Option<UserCursor>,
}

/// Where a page of users ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UserCursor {
    /// When the last user was made.
    pub created_at: SystemTime,
    /// The identifier of the last user.
    pub id: UserId,
}

impl UserPage {
    /// The newest users, so many at most.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// The ones after this one.
    #[must_use]
    pub fn after(self, cursor: UserCursor) -> Self {
        Self { after: Some(cursor), ..self }
    }
}

impl UserCursor {
    /// Behind a user made then.
    #[must_use]
    pub fn new(created_at: SystemTime, id: UserId) -> Self {
        Self { created_at, id }
    }
}

impl From<&User> for UserCursor {
    fn from(user: &User) -> Self {
        Self::new(user.created_at, user.id.clone())
    }
}

/// What a user is after a change. `users` are, locked, the user, who acts, and all active admins.
pub(crate) fn judge_change(
    users: &[User],
    id: &UserId,
    change: &UserChange,
) -> Result<User, UpdateUserError> {
    let changed = |before: &User| {
        let mut after = before.clone();
        after.role = change.role.clone().unwrap_or(after.role);
        after.plan = change.plan.clone().unwrap_or(after.plan);
        after.suspended = change.suspended.unwrap_or(after.suspended);
        after.email_verified |= change.verify_email;
        after.epoch += u64::from(after.suspended && !before.suspended);
        Some(after)
    };
    judge(users, id, change.by.as_ref(), changed)
}

/// Whether a user may go. `users` as for [`judge_change`].
pub(crate) fn judge_deletion(
    users: &[User],
    id: &UserId,
    by: Option<&UserId>,
) -> Result<User, UpdateUserError> {
    judge(users, id, by, |_| None)
}

/// What is left of a user is judged first: of two admins who demote one another at once, the second
/// is told that the last one must stay.
fn judge(
    users: &[User],
    id: &UserId,
    by: Option<&UserId>,
    left: impl FnOnce(&User) -> Option<User>,
) -> Result<User, UpdateUserError> {
    let user = users.iter().find(|user| user.id == *id);
    let is_admin = |id: &UserId| users.iter().any(|user| user.id == *id && user.is_active_admin());
    let Some(before) = user else {
        let may = by.is_none_or(is_admin);
        return Err(if may { UpdateUserError::NotFound } else { UpdateUserError::NotAllowed });
    };
    let after = left(before);
    let stays = after.as_ref().is_some_and(User::is_active_admin);
    let another = users.iter().any(|user| user.id != *id && user.is_active_admin());
    if before.is_active_admin() && !stays && !another {
        return Err(UpdateUserError::LastAdmin);
    }
    if !by.is_none_or(is_admin) {
        return Err(UpdateUserError::NotAllowed);
    }
    Ok(after.unwrap_or_else(|| before.clone()))
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
