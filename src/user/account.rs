//! Who is registered.

use std::{fmt, time::SystemTime};

use super::Email;
use crate::{Plan, Role, UserId};

/// A registered user. The password hash is not in it: it comes apart, and only where a password is
/// checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct User {
    /// Which.
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
    pub second_factor: bool,
    /// When the user registered.
    pub created_at: SystemTime,
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
            created_at,
        }
    }
}

/// What is stored of a password: for bcrypt, its modular crypt form (`$2b$12$…`).
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
