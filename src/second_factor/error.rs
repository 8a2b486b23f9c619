//! What can be wrong with a second factor.

use crate::StoreError;

/// Why something about a second factor was not done.
///
/// ```
/// use tower_warden::{Problem, second_factor::SecondFactorError};
/// let problem = Problem::from(SecondFactorError::WrongCode);
/// assert_eq!((problem.status().as_u16(), problem.code()), (403, "wrong_code"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecondFactorError {
    /// It is on already: it is turned off before another is set up.
    #[error("a second factor is on already")]
    AlreadyOn,
    /// There is none to confirm.
    #[error("no second factor is pending")]
    NotPending,
    /// There is no such account any more, or it is suspended.
    #[error("the account is gone or suspended")]
    NoUser,
    /// The code is wrong, or was used before.
    #[error("wrong code")]
    WrongCode,
    /// The store failed, or no key opens what it holds. Says nothing about the code.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the second step of a login was turned away.
///
/// ```
/// use tower_warden::{Problem, second_factor::SecondStepError};
/// let problem = Problem::from(SecondStepError::InvalidCode);
/// assert_eq!((problem.status().as_u16(), problem.code()), (401, "invalid_code"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecondStepError {
    /// The code is wrong or was used before, or the login token is none, or is none any more.
    #[error("invalid code")]
    InvalidCode,
    /// The store failed. Says nothing about the code, and is no try.
    #[error(transparent)]
    Store(#[from] StoreError),
}
