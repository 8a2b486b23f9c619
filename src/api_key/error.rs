//! What can be wrong with a key, and with a wish for one.

use std::fmt;

use crate::StoreError;

/// Why nobody is known by a key.
///
/// ```
/// use tower_warden::{Problem, api_key::ApiKeyError};
/// assert_eq!(Problem::from(ApiKeyError::Revoked).code(), "token_revoked");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiKeyError {
    /// Genuine, and past its time.
    #[error("the key is expired")]
    Expired,
    /// Genuine, and revoked; or its owner is gone or suspended.
    #[error("the key is revoked")]
    Revoked,
    /// Anything else that was presented as a key. The reason is one of a few fixed words, for logs
    /// and metrics; it is not for who presented it.
    #[error("the key is invalid: {0}")]
    Invalid(&'static str),
    /// The store failed, and the key was not seen within the last minute. It may be good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why no key was made.
///
/// ```
/// use tower_warden::{Problem, api_key::{CreateKeyError, KeyObjection}};
/// let problem = Problem::from(CreateKeyError::Unfit(vec![KeyObjection::RoleTooHigh]));
/// assert_eq!((problem.status().as_u16(), problem.code()), (422, "validation_failed"));
/// assert_eq!(Problem::from(CreateKeyError::TooMany).code(), "too_many_keys");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateKeyError {
    /// What was asked for won't do: all that is wrong with it.
    #[error("the key won't do")]
    Unfit(Vec<KeyObjection>),
    /// The owner has as many keys as one may have.
    #[error("too many API keys")]
    TooMany,
    /// The owner is gone or suspended.
    #[error("no such owner")]
    NoOwner,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a key that was asked for.
///
/// ```
/// use tower_warden::api_key::KeyObjection;
/// let objection = KeyObjection::AlreadyExpired;
/// assert_eq!(objection.code(), ("expires_at", "in_the_past"));
/// assert_eq!(objection.to_string(), "must be in the future");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyObjection {
    /// The role is above the owner's, or one that the service ranks nowhere.
    RoleTooHigh,
    /// The key would have ended before it began.
    AlreadyExpired,
}

impl KeyObjection {
    /// Which member of a request it is about, and a word for programs.
    #[must_use]
    pub fn code(self) -> (&'static str, &'static str) {
        match self {
            Self::RoleTooHigh => ("role", "too_high"),
            Self::AlreadyExpired => ("expires_at", "in_the_past"),
        }
    }
}

impl fmt::Display for KeyObjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoleTooHigh => "must not be above your own role",
            Self::AlreadyExpired => "must be in the future",
        })
    }
}
