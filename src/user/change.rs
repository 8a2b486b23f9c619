//! What the verbs of a [`UserStore`](super::UserStore) are handed, and what they answer.

use std::time::{Duration, SystemTime};

use super::{Email, PasswordHash, User};
use crate::{Plan, Role, TokenHash, UserId, clock::later};

/// A user to add.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::{Role, UserId, user::{Email, NewUser, PasswordHash}};
/// // An account that moves here with the hash of its password, which bcrypt made elsewhere.
/// let hash = PasswordHash::from("$2b$10$…".to_owned());
/// let moved = NewUser::new(Email::parse("ada@example.com")?, hash, SystemTime::now())
///     .with_id(UserId::random())
///     .with_role(Role::EDITOR);
/// assert!(moved.verification.is_none()); // its address is known to be genuine
/// # Ok::<(), tower_warden::user::InvalidEmail>(())
/// ```
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
    /// A token made then that lives so long, and at most a hundred years.
    #[must_use]
    pub fn new(hash: TokenHash, created_at: SystemTime, time_to_live: Duration) -> Self {
        Self { hash, created_at, expires_at: later(created_at, time_to_live) }
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
    /// Whether to take the second factor off, one that is not yet confirmed included.
    pub second_factor_off: bool,
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

    /// The same change, and the second factor is taken off: for a user who has lost it.
    #[must_use]
    pub fn with_second_factor_off(self) -> Self {
        Self { second_factor_off: true, ..self }
    }

    /// The same change, if this user is an active admin when it is made.
    #[must_use]
    pub fn by(self, admin: &UserId) -> Self {
        Self { by: Some(admin.clone()), ..self }
    }
}

/// A user was changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UserChanged {
    /// As it was.
    pub before: User,
    /// As it is.
    pub user: User,
}

impl UserChanged {
    /// A user, as it was and as it is.
    #[must_use]
    pub fn new(before: User, user: User) -> Self {
        Self { before, user }
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
    /// The word for what was changed, if anything was.
    pub(crate) fn change(self) -> Option<&'static str> {
        match self {
            Self::Created => Some("created"),
            Self::Promoted => Some("promoted"),
            Self::TakenOver => Some("taken_over"),
            Self::Unchanged | Self::Suspended => None,
        }
    }

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
///
/// ```
/// use tower_warden::{StoreError, UserService, user::{UserCursor, UserPage}};
///
/// async fn all(users: &UserService) -> Result<usize, StoreError> {
///     let (mut page, mut seen) = (UserPage::new(100), 0);
///     loop {
///         let found = users.list(&page).await?;
///         seen += found.len();
///         match found.last() {
///             Some(last) => page = page.after(UserCursor::from(last)),
///             None => return Ok(seen),
///         }
///     }
/// }
/// ```
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_long_to_be_added_to_a_date() {
        let now = SystemTime::now();
        let link = LinkToken::new(TokenHash::of("a token"), now, Duration::MAX);
        assert!(link.expires_at > now);
    }
}
