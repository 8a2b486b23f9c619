//! How addresses are proved: by a link, mailed to them, that works once.

use std::error::Error;

use tracing::Instrument;

use super::{
    Email, LinkSecret, LinkToken, User, UserService,
    link::{MAIL_AT_MOST_EVERY, link_hash},
    service::in_even_time,
};
use crate::{Origin, StoreError};

/// Why an address was not verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The token is unknown, used, replaced by a later one, or past its time.
    #[error("invalid or expired verification token")]
    InvalidToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UserService {
    /// Verifies the address to which this token was mailed. It works once.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn verify_email(&self, token: &str) -> Result<User, VerifyError> {
        let token = link_hash(token).ok_or(VerifyError::InvalidToken)?;
        let user = self.store.verify_email(&token, self.clock.now()).await?;
        let user = user.ok_or(VerifyError::InvalidToken)?;
        tracing::info!(user = %user.id, "address verified");
        Ok(user)
    }

    /// Whether [`verify_email`](Self::verify_email) would accept this token now. Changes nothing.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn check_verification(&self, token: &str) -> Result<(), VerifyError> {
        let token = link_hash(token).ok_or(VerifyError::InvalidToken)?;
        let user = self.store.find_verification(&token, self.clock.now()).await?;
        user.map(drop).ok_or(VerifyError::InvalidToken)
    }

    /// Mails an account that isn't verified a new link, in place of the old one, at most once a
    /// minute, the mail of the registration included. Whether there is such an account isn't told.
    ///
    /// Nor does the time tell: whoever asks waits for a look at the store only, and on to the next
    /// twentieth millisecond.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn resend_verification(
        &self,
        email: impl AsRef<str> + Send,
    ) -> Result<(), StoreError> {
        match Email::parse(email.as_ref()) {
            Ok(email) => in_even_time(self.resend(email)).await,
            Err(_) => Ok(()),
        }
    }

    async fn resend(&self, email: Email) -> Result<(), StoreError> {
        let link = self.new_link(self.verification_ttl)?;
        let found = self.store.find_by_email(&email).await?;
        if found.is_some_and(|(user, _)| !user.email_verified) {
            let service = self.clone();
            let work = async move {
                if let Err(error) = service.renew_verification(&email, link).await {
                    tracing::warn!(error = &error as &dyn Error, "a link was not sent again");
                }
            };
            tokio::spawn(Origin::inherited(work).in_current_span());
        }
        Ok(())
    }

    async fn renew_verification(
        &self,
        email: &Email,
        (secret, stored): (LinkSecret, LinkToken),
    ) -> Result<(), StoreError> {
        let renewed = self.store.renew_verification(email, stored, MAIL_AT_MOST_EVERY).await?;
        if let Some(user) = renewed {
            self.post_link(self.verification_mail.as_ref(), &user, &user.email, &secret);
        }
        Ok(())
    }
}
