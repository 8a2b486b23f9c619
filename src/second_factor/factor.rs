//! What a second factor is to a login.

use std::fmt;

use async_trait::async_trait;
use auto_impl::auto_impl;

use crate::{StoreError, UserId};

/// A second factor: what a [`LoginSteps`](super::LoginSteps) asks after the right password.
///
/// [`TotpService`](super::TotpService) is one. Yours may send a code to a phone, ask a hardware
/// token, or ask several others in turn.
///
/// ```
/// use tower_warden::{StoreError, UserId, second_factor::SecondFactor};
///
/// /// The same word for everybody; for the example's sake.
/// #[derive(Debug)]
/// struct Watchword;
///
/// #[async_trait::async_trait]
/// impl SecondFactor for Watchword {
///     async fn is_on(&self, _: &UserId) -> Result<bool, StoreError> {
///         Ok(true)
///     }
///
///     async fn check(&self, _: &UserId, code: &str) -> Result<bool, StoreError> {
///         Ok(code == "swordfish")
///     }
/// }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait SecondFactor: fmt::Debug + Send + Sync + 'static {
    /// Whether this user's logins need it.
    async fn is_on(&self, user: &UserId) -> Result<bool, StoreError>;

    /// Whether a code is right; it is used up then, so that of two who present it at once one is told
    /// yes. How often one may try is not its business.
    async fn check(&self, user: &UserId, code: &str) -> Result<bool, StoreError>;
}
