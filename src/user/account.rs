//! Who is registered.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::Email;
use crate::{Identity, Plan, Role, UserId};

/// A registered user. The password hash is not in it: it comes apart, and only where a password is
/// checked.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::{Identity, Plan, Role, UserId, user::{Email, User}};
/// let email = Email::parse("ada@example.com")?;
/// let mut ada = User::new(UserId::from("42"), email, Role::EDITOR, SystemTime::now());
/// ada.plan = Some(Plan::PAID);
/// let caller = Identity::from(&ada); // for TokenService::issue
/// assert_eq!((caller.user_id(), caller.plan()), (&ada.id, Some(&Plan::PAID)));
/// # Ok::<(), tower_warden::user::InvalidEmail>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The identifier, which never changes.
    pub id: UserId,
    /// The canonical address.
    pub email: Email,
    /// What the user may do.
    pub role: Role,
    /// What the user pays for.
    pub plan: Option<Plan>,
    /// Whether the address was proved.
    pub email_verified: bool,
    /// Whether a second factor is on.
    #[serde(default)]
    pub second_factor: bool,
    /// Whether an admin took away the use of the account.
    #[serde(default)]
    pub suspended: bool,
    /// When the user registered.
    pub created_at: SystemTime,
    /// How often all sessions ended at once: by a reset or changed password, by suspension. A login
    /// that began in one epoch opens no session in the next.
    #[serde(default)]
    pub epoch: u64,
}

impl User {
    /// A user as a store reads it back.
    #[must_use]
    pub fn new(id: UserId, email: Email, role: Role, created_at: SystemTime) -> Self {
        Self {
            id,
            email,
            role,
            plan: None,
            email_verified: false,
            second_factor: false,
            suspended: false,
            created_at,
            epoch: 0,
        }
    }

    /// Whether this is an admin who may act: verified, and not suspended.
    #[must_use]
    pub fn is_active_admin(&self) -> bool {
        self.role == Role::ADMIN && self.email_verified && !self.suspended
    }
}

/// What tokens say of a user who logged in.
impl From<&User> for Identity {
    fn from(user: &User) -> Self {
        let identity = Self::new(user.id.clone(), user.role.clone()).with_epoch(user.epoch);
        match &user.plan {
            Some(plan) => identity.with_plan(plan.clone()),
            None => identity,
        }
    }
}

/// What is stored of a password: for bcrypt, its modular crypt form (`$2b$12$…`).
///
/// ```
/// use tower_warden::user::PasswordHash;
/// let hash = PasswordHash::from("$2b$12$…".to_owned()); // as a store reads it back
/// assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// The text that is stored.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for PasswordHash {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}
