//! How users come to be.

use super::{
    CreateUserError, Email, EnsuredAdmin, HashingError, InvalidEmail, LinkSecret, NewUser,
    Password, User, UserService, Violation, service::carry_through,
};
use crate::{Role, StoreError};

/// Why nobody was registered.
///
/// ```
/// use tower_warden::{Problem, user::{RegisterError, Violation}};
/// let problem = Problem::from(RegisterError::WeakPassword(vec![Violation::TooShort, Violation::NoDigit]));
/// let response = problem.into_http(); // all that is wrong, at once
/// assert_eq!(response.status(), 422);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The address has an account.
    #[error("the address has an account already")]
    EmailTaken,
    /// This is no address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// An account that is to be an admin is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The password won't do: all that is wrong with it.
    #[error("the password is too weak")]
    WeakPassword(Vec<Violation>),
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UserService {
    /// Registers a viewer without a plan, and mails a link that proves the address. The mail is sent
    /// afterwards: it neither delays nor fails this.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register(
        &self,
        email: impl AsRef<str> + Send,
        password: Password,
    ) -> Result<User, RegisterError> {
        let new = self.new_user(email.as_ref(), password).await?;
        let service = self.clone();
        carry_through(async move {
            let (user, secret) = service.create_unverified(new).await?;
            service.post_link(service.verification_mail.as_ref(), &user, &user.email, &secret);
            Ok(user)
        })
        .await
    }

    /// The same without a mail: the token that proves the address, by
    /// [`verify_email`](Self::verify_email), is yours to deliver.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register_unmailed(
        &self,
        email: impl AsRef<str> + Send,
        password: Password,
    ) -> Result<(User, LinkSecret), RegisterError> {
        let new = self.new_user(email.as_ref(), password).await?;
        self.create_unverified(new).await
    }

    /// Makes a user whose address is known to be genuine, by whom you invited, say, in this role.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn create_verified(
        &self,
        email: impl AsRef<str> + Send,
        password: Password,
        role: Role,
    ) -> Result<User, RegisterError> {
        let new = self.new_user(email.as_ref(), password).await?;
        let user = self.store.create(new.with_role(role)).await?;
        tracing::info!(user = %user.id, "created");
        Ok(user)
    }

    /// Sees to it that this address has a verified admin, and answers who and how: a new user; a
    /// verified one, who keeps the password; or an account that was never verified. That one is
    /// nobody's: it gets this password, and its links and sessions end. What was done is logged.
    /// Servers that start at the same time may do this at the same time.
    ///
    /// # Errors
    /// [`RegisterError::Suspended`]; the others but for [`RegisterError::EmailTaken`], which doesn't
    /// occur. A weak password is an error also where it isn't needed.
    pub async fn ensure_admin(
        &self,
        email: impl AsRef<str> + Send,
        password: Password,
    ) -> Result<(User, EnsuredAdmin), RegisterError> {
        self.check_policy(&password).await.map_err(RegisterError::WeakPassword)?;
        let email = Email::parse(email.as_ref())?;
        let hash = self.hashing.hash(password).await?;
        let admin = NewUser::new(email, hash, self.clock.now()).with_role(Role::ADMIN);
        let (user, outcome) = self.store.ensure_admin(&admin, &self.clock).await?;
        match outcome {
            EnsuredAdmin::Suspended => return Err(RegisterError::Suspended),
            EnsuredAdmin::Created => tracing::info!(user = %user.id, "admin created"),
            EnsuredAdmin::Promoted => tracing::warn!(user = %user.id, "user promoted to admin"),
            EnsuredAdmin::TakenOver => tracing::warn!(
                user = %user.id,
                "an account whose address was never verified is an admin's now, with a new password"
            ),
            EnsuredAdmin::Unchanged => tracing::debug!(user = %user.id, "admin is there"),
        }
        Ok((user, outcome))
    }

    async fn create_unverified(&self, new: NewUser) -> Result<(User, LinkSecret), RegisterError> {
        let (secret, stored) = self.new_link(self.verification_ttl)?;
        let user = self.store.create(new.with_verification(stored)).await?;
        tracing::info!(user = %user.id, "registered");
        Ok((user, secret))
    }

    /// A viewer to add, of an address that is taken as genuine until a proof is asked for.
    async fn new_user(&self, email: &str, password: Password) -> Result<NewUser, RegisterError> {
        self.check_policy(&password).await.map_err(RegisterError::WeakPassword)?;
        let email = Email::parse(email)?;
        // Only spares the hash. Of many who register at once the store lets one in.
        if self.store.find_holder(&email, self.clock.now()).await?.is_some() {
            return Err(RegisterError::EmailTaken);
        }
        let hash = self.hashing.hash(password).await?;
        Ok(NewUser::new(email, hash, self.clock.now()))
    }
}

impl From<CreateUserError> for RegisterError {
    fn from(error: CreateUserError) -> Self {
        match error {
            CreateUserError::EmailTaken => Self::EmailTaken,
            CreateUserError::Store(error) => Self::Store(error),
        }
    }
}

impl From<HashingError> for RegisterError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy => Self::Busy,
            HashingError::Hash(error) => Self::Store(StoreError::internal(error)),
        }
    }
}
