//! What can be wrong with a key, and with a wish for one.

use crate::StoreError;

/// Why nobody is known by a key.
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateKeyError {
    /// The role is above the owner's, or one that the service ranks nowhere.
    #[error("the role is above the owner's")]
    RoleTooHigh,
    /// The key would have ended before it began.
    #[error("the end of the key is not in the future")]
    AlreadyExpired,
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
