//! How a user's address is changed: by a link that is mailed to the new one.

use super::{
    CheckedPassword, Email, EmailChangeError, Notice, User, UserService,
    link::{MAIL_AT_MOST_EVERY, link_hash},
    service::carry_through,
};
use crate::UserId;

impl UserService {
    /// Mails a link to the address that a user wants, and a notice to the present one; a second within
    /// a minute does nothing. Nothing changes before [`confirm_email`](Self::confirm_email). Of a user
    /// who has a password ask for it first, and see [`change_email_checked`](Self::change_email_checked).
    ///
    /// # Errors
    /// See [`EmailChangeError`].
    pub async fn change_email(
        &self,
        id: &UserId,
        email: impl AsRef<str> + Send,
    ) -> Result<(), EmailChangeError> {
        self.ask_new_address(id, None, email.as_ref()).await
    }

    /// The same for a user whose password was [checked](Self::check_password) for it. Where it was reset
    /// meanwhile nothing is mailed: who knew the old one can't take the account along.
    ///
    /// # Errors
    /// See [`EmailChangeError`].
    pub async fn change_email_checked(
        &self,
        checked: CheckedPassword,
        email: impl AsRef<str> + Send,
    ) -> Result<(), EmailChangeError> {
        let user = checked.user();
        self.ask_new_address(&user.id, Some(user.epoch), email.as_ref()).await
    }

    async fn ask_new_address(
        &self,
        id: &UserId,
        epoch: Option<u64>,
        email: &str,
    ) -> Result<(), EmailChangeError> {
        let email = Email::parse(email)?;
        let (secret, stored) = self.new_link(self.email_change_ttl)?;
        let (service, id) = (self.clone(), id.clone());
        carry_through(async move {
            let noted = service.store.put_email_change(&id, &email, stored, MAIL_AT_MOST_EVERY);
            if let Some(user) = noted.await? {
                // As it was under the lock: a link that was put after a reset is mailed to nobody, and
                // one that was put before has ended with it.
                if epoch.is_some_and(|epoch| epoch != user.epoch) {
                    return Err(EmailChangeError::Outdated);
                }
                service.post_link(service.email_change_mail.as_ref(), &user, &email, &secret);
                service.notify(&user, Notice::EmailChangeRequested);
            }
            Ok(())
        })
        .await
    }

    /// Makes the address to which this token was mailed the user's, verified. It works once, also
    /// where the address was taken meanwhile. Sessions stay.
    ///
    /// # Errors
    /// See [`EmailChangeError`].
    pub async fn confirm_email(&self, token: &str) -> Result<User, EmailChangeError> {
        let token = link_hash(token).ok_or(EmailChangeError::InvalidToken)?;
        let user = self.store.confirm_email_change(&token, &self.clock).await?;
        tracing::info!(user = %user.id, "address changed");
        Ok(user)
    }
}
