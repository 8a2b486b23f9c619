//! How users are recognized.

use super::{Email, HashingError, Password, PasswordHash, User, UserService, hashing_pool::Match};
use crate::{StoreError, signals};

/// Why a login was turned away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// No such address, or another password.
    #[error("invalid email or password")]
    InvalidCredentials,
    /// The password is right, but the address was never proved.
    #[error("the address is not verified")]
    EmailNotVerified,
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed. Says nothing about the password.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UserService {
    /// The user of this address and password. Verifies one password whether or not there is an
    /// account, so that the time it takes doesn't tell.
    ///
    /// A password that was hashed more cheaply than is usual now, or before it was
    /// [normalized](Password), is hashed anew, afterwards.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn authenticate(&self, email: &str, password: Password) -> Result<User, LoginError> {
        let outcome = self.check(email, password).await;
        signals::login(match &outcome {
            Ok(_) => "ok",
            Err(LoginError::InvalidCredentials) => "invalid_credentials",
            Err(LoginError::EmailNotVerified) => "not_verified",
            Err(LoginError::Busy) => "busy",
            Err(LoginError::Store(_)) => "failed",
        });
        outcome
    }

    async fn check(&self, email: &str, password: Password) -> Result<User, LoginError> {
        let account = match Email::parse(email) {
            Ok(email) => self.store.find_by_email(&email).await?,
            Err(_) => None,
        };
        let hash = account.as_ref().map(|(_, hash)| hash.clone());
        let found = self.hashing.check(password.clone(), hash).await?;
        let Some((user, hash)) = account else {
            tracing::info!("login refused: no such account");
            return Err(LoginError::InvalidCredentials);
        };
        if found == Match::No {
            tracing::info!(user = %user.id, "login refused: wrong password");
            return Err(LoginError::InvalidCredentials);
        }
        if found == Match::AsTyped || self.hashing.needs_rehash(&hash) {
            tokio::spawn(self.clone().rehash(user.clone(), password, hash));
        }
        if !user.email_verified {
            tracing::info!(user = %user.id, "login refused: address not verified");
            return Err(LoginError::EmailNotVerified);
        }
        tracing::info!(user = %user.id, "logged in");
        Ok(user)
    }

    /// What fails here is left for the next login.
    async fn rehash(self, user: User, password: Password, old: PasswordHash) {
        let new = match self.hashing.hash(password).await {
            Ok(new) => new,
            Err(error) => return tracing::debug!(user = %user.id, %error, "password not rehashed"),
        };
        match self.store.replace_password_hash(&user.id, &old, &new).await {
            Ok(replaced) => tracing::debug!(user = %user.id, replaced, "password rehashed"),
            Err(error) => tracing::debug!(user = %user.id, %error, "password not rehashed"),
        }
    }
}

impl From<HashingError> for LoginError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy => Self::Busy,
            HashingError::Hash(error) => Self::Store(StoreError::internal(error)),
        }
    }
}
