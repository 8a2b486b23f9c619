//! Passwords that are forgotten, or changed.

use std::error::Error;

use tracing::Instrument;

use super::{
    Email, HashingError, LinkSecret, Notice, Password, PasswordChange, User, UserService,
    Violation,
    hashing_pool::Match,
    link::{MAIL_AT_MOST_EVERY, link_hash},
    service::{carry_through, in_even_time},
};
use crate::{Origin, StoreError, UserId, audit::Act};

/// Why a password was not set by a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// The token is unknown, used, replaced by a later one, or past its time.
    #[error("invalid or expired reset token")]
    InvalidToken,
    /// The password won't do: all that is wrong with it. The link is as good as before.
    #[error("the password is too weak")]
    WeakPassword(Vec<Violation>),
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the password of someone who is signed in was not found right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckPasswordError {
    /// It is another.
    #[error("wrong password")]
    WrongPassword,
    /// There is no such account any more, or it is suspended: nothing was tried.
    #[error("the account is gone or suspended")]
    Gone,
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed. Says nothing about the password.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangePasswordError {
    /// The current password is another.
    #[error("wrong password")]
    WrongPassword,
    /// There is no such account any more, or it is suspended.
    #[error("the account is gone or suspended")]
    Gone,
    /// The new password won't do: all that is wrong with it. The current one was right.
    #[error("the password is too weak")]
    WeakPassword(Vec<Violation>),
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The proof that a user's password was found right.
#[derive(Debug)]
pub struct CheckedPassword {
    user: User,
}

impl CheckedPassword {
    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }
}

impl UserService {
    /// Mails the user of this address a link by which a new password is set, in place of the last
    /// such link, at most once a minute. Whether there is such a user isn't told, nor does the time tell:
    /// whoever asks waits for a look at the store only, and on to the next twentieth millisecond. Who is
    /// suspended gets none.
    ///
    /// # Errors
    /// Where the store fails, or offers no such links.
    pub async fn forgot_password(&self, email: impl AsRef<str> + Send) -> Result<(), StoreError> {
        match Email::parse(email.as_ref()) {
            Ok(email) => in_even_time(self.forgot(&email)).await,
            Err(_) => Ok(()),
        }
    }

    async fn forgot(&self, email: &Email) -> Result<(), StoreError> {
        let (secret, stored) = self.new_link(self.reset_ttl)?;
        let found = self.store.find_by_email(email).await?;
        if let Some((user, _)) = found.filter(|(user, _)| !user.suspended) {
            let service = self.clone();
            let work = async move {
                match service.store.put_reset(&user.id, stored, MAIL_AT_MOST_EVERY).await {
                    Ok(Some(user)) => {
                        let mail = service.reset_mail.as_ref();
                        service.post_link(mail, &user, &user.email, &secret);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn Error, "no reset link was made");
                    }
                }
            };
            tokio::spawn(Origin::inherited(work).in_current_span());
        }
        Ok(())
    }

    /// The same for a user whom you found in your own way, by name, say; the token is yours to
    /// deliver, to an address that you know to be the user's. `None` where there is no such user, one
    /// who is suspended, or one who got a link less than a minute ago.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn reset_link(&self, id: &UserId) -> Result<Option<(User, LinkSecret)>, StoreError> {
        let (secret, stored) = self.new_link(self.reset_ttl)?;
        let user = self.store.put_reset(id, stored, MAIL_AT_MOST_EVERY).await?;
        Ok(user.map(|user| (user, secret)))
    }

    /// Sets the password of the user to whom this token was mailed. It works once. It proves the
    /// address, ends every session of the user and what is pending, and mails a notice; it signs
    /// nobody in.
    ///
    /// # Errors
    /// See [`ResetError`].
    pub async fn reset_password(
        &self,
        token: &str,
        password: Password,
    ) -> Result<User, ResetError> {
        self.check_policy(&password).await.map_err(ResetError::WeakPassword)?;
        let token = link_hash(token).ok_or(ResetError::InvalidToken)?;
        // Only spares the hash. Of many who present it at once the store lets one in.
        if self.store.find_reset(&token, self.clock.now()).await?.is_none() {
            return Err(ResetError::InvalidToken);
        }
        let hash = self.hashing.hash(password).await?;
        let service = self.clone();
        carry_through(async move {
            let set = service.store.reset_password(&token, &hash, &service.clock).await?;
            let set = set.ok_or(ResetError::InvalidToken)?;
            tracing::info!(user = %set.user.id, "password reset");
            service.notify(&set.user, Notice::PasswordReset { api_keys: set.api_keys });
            Ok(set.user)
        })
        .await
    }

    /// Whether [`reset_password`](Self::reset_password) would accept this token now. Changes nothing.
    ///
    /// # Errors
    /// See [`ResetError`].
    pub async fn check_reset(&self, token: &str) -> Result<(), ResetError> {
        let token = link_hash(token).ok_or(ResetError::InvalidToken)?;
        let user = self.store.find_reset(&token, self.clock.now()).await?;
        user.map(drop).ok_or(ResetError::InvalidToken)
    }

    /// Checks the password of a user who is signed in, before something that asks for it. What comes
    /// of it goes into [`change_password`](Self::change_password).
    ///
    /// # Errors
    /// See [`CheckPasswordError`].
    pub async fn check_password(
        &self,
        id: &UserId,
        password: Password,
    ) -> Result<CheckedPassword, CheckPasswordError> {
        let found = self.store.find_with_hash(id).await?.filter(|(user, _)| !user.suspended);
        // Who is signed in knows that there is an account.
        let (user, hash) = found.ok_or(CheckPasswordError::Gone)?;
        if self.hashing.check(password, Some(hash)).await? == Match::No {
            tracing::info!(user = %id, "wrong password of one who is signed in");
            self.note_refusal(Act::CONFIRMATION, Some(id), "wrong_password");
            return Err(CheckPasswordError::WrongPassword);
        }
        Ok(CheckedPassword { user })
    }

    /// Sets a new password in place of one that was [checked](Self::check_password), ends what is
    /// pending by the old one (a reset, a change of address) and all sessions but `session` (the `sid` of
    /// the caller's token, which [`TokenService::renew`](crate::TokenService::renew) then gives a new
    /// pair), and mails a notice.
    ///
    /// # Errors
    /// See [`ChangePasswordError`]; [`ChangePasswordError::WrongPassword`] where the password was
    /// changed since it was checked.
    pub async fn change_password(
        &self,
        checked: CheckedPassword,
        password: Password,
        session: Option<&str>,
    ) -> Result<User, ChangePasswordError> {
        self.check_policy(&password).await.map_err(ChangePasswordError::WeakPassword)?;
        let new = self.hashing.hash(password).await?;
        let mut change = PasswordChange::new(&checked.user, new);
        if let Some(session) = session {
            change = change.keeping(session);
        }
        let service = self.clone();
        carry_through(async move {
            let set = service.store.change_password(&change, &service.clock).await?;
            let Some(set) = set else {
                let user = service.store.find(&change.id).await?;
                return Err(match user.filter(|user| !user.suspended) {
                    Some(_) => ChangePasswordError::WrongPassword,
                    None => ChangePasswordError::Gone,
                });
            };
            tracing::info!(user = %set.user.id, "password changed");
            service.notify(&set.user, Notice::PasswordChanged { api_keys: set.api_keys });
            Ok(set.user)
        })
        .await
    }
}

/// What is busy is busy, and what fails fails, whatever is asked of the hasher.
macro_rules! from_hashing_error {
    ($($error:ty),+) => {$(
        impl From<HashingError> for $error {
            fn from(error: HashingError) -> Self {
                match error {
                    HashingError::Busy => Self::Busy,
                    HashingError::Hash(error) => Self::Store(StoreError::internal(error)),
                }
            }
        }
    )+};
}

from_hashing_error!(ResetError, CheckPasswordError, ChangePasswordError);
