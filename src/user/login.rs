//! How users are recognized.

use super::{Email, HashingError, Password, PasswordHash, User, UserService, hashing_pool::Match};
use crate::{StoreError, UserId, audit::Act, signals};

/// Why a login was turned away.
///
/// ```
/// use tower_warden::{Problem, user::LoginError};
/// let problem = Problem::from(LoginError::InvalidCredentials); // what `?` answers in a handler
/// assert_eq!((problem.status().as_u16(), problem.code()), (401, "invalid_credentials"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// No such address, or another password.
    #[error("invalid email or password")]
    InvalidCredentials,
    /// The password is right, but the account is suspended.
    #[error("the account is suspended")]
    Suspended,
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
    /// The user of this address and password, who may come in: a second factor of the program's own
    /// belongs between this and [`TokenService::issue`](crate::TokenService::issue). `Identity::from`
    /// the user says to which [epoch](User::epoch) this answer belongs, so that no session is opened
    /// for one whose password is another by then. Verifies one password whether or not there is an
    /// account, so that the time it takes doesn't tell.
    ///
    /// A password that was hashed more cheaply than is usual now, or before it was
    /// [normalized](Password), is hashed anew, afterwards.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn authenticate(
        &self,
        email: impl AsRef<str> + Send,
        password: Password,
    ) -> Result<User, LoginError> {
        let account = match Email::parse(email.as_ref()) {
            Ok(email) => self.store.find_by_email(&email).await,
            Err(_) => Ok(None),
        };
        self.recognize(account, password).await
    }

    /// The user of this identifier and password: for programs that look users up in a way of their
    /// own, by a user name that they keep, say. `None`, where they found nobody, costs as much and is
    /// refused in the same way.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn authenticate_by_id(
        &self,
        id: Option<&UserId>,
        password: Password,
    ) -> Result<User, LoginError> {
        let account = match id {
            Some(id) => self.store.find_with_hash(id).await,
            None => Ok(None),
        };
        self.recognize(account, password).await
    }

    async fn recognize(
        &self,
        account: Result<Option<(User, PasswordHash)>, StoreError>,
        password: Password,
    ) -> Result<User, LoginError> {
        let outcome = match account {
            Ok(account) => self.check(account, password).await,
            Err(error) => Err(error.into()),
        };
        signals::login(match &outcome {
            Ok(_) => "ok",
            Err(LoginError::InvalidCredentials) => "invalid_credentials",
            Err(LoginError::EmailNotVerified) => "not_verified",
            Err(LoginError::Suspended) => "suspended",
            Err(LoginError::Busy) => "busy",
            Err(LoginError::Store(_)) => "failed",
        });
        outcome
    }

    async fn check(
        &self,
        account: Option<(User, PasswordHash)>,
        password: Password,
    ) -> Result<User, LoginError> {
        let hash = account.as_ref().map(|(_, hash)| hash.clone());
        let found = self.hashing.check(password.clone(), hash).await?;
        let Some((user, hash)) = account else {
            tracing::info!("login refused: no such account");
            self.note_refusal(Act::LOGIN, None, "invalid_credentials");
            return Err(LoginError::InvalidCredentials);
        };
        if found == Match::No {
            tracing::info!(user = %user.id, "login refused: wrong password");
            self.note_refusal(Act::LOGIN, Some(&user.id), "invalid_credentials");
            return Err(LoginError::InvalidCredentials);
        }
        if found == Match::AsTyped || self.hashing.needs_rehash(&hash) {
            tokio::spawn(self.clone().rehash(user.clone(), password, hash));
        }
        if user.suspended {
            tracing::info!(user = %user.id, "login refused: suspended");
            self.note_refusal(Act::LOGIN, Some(&user.id), "suspended");
            return Err(LoginError::Suspended);
        }
        if !user.email_verified {
            tracing::info!(user = %user.id, "login refused: address not verified");
            self.note_refusal(Act::LOGIN, Some(&user.id), "not_verified");
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
