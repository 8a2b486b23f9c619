//! How a user's address is changed: by a link that is mailed to the new one.

use super::{
    Email, EmailChangeError, Notice, User, UserService,
    link::{MAIL_AT_MOST_EVERY, link_hash},
    service::carry_through,
};
use crate::UserId;

impl UserService {
    /// Mails a link to the address that a user wants, and a notice to the present one; a second within
    /// a minute does nothing. Nothing changes before [`confirm_email`](Self::confirm_email). Ask for
    /// the [password](Self::check_password) first.
    ///
    /// # Errors
    /// See [`EmailChangeError`].
    pub async fn change_email(
        &self,
        id: &UserId,
        email: impl AsRef<str> + Send,
    ) -> Result<(), EmailChangeError> {
        let email = Email::parse(email.as_ref())?;
        let (secret, stored) = self.new_link(self.email_change_ttl)?;
        let (service, id) = (self.clone(), id.clone());
        carry_through(async move {
            let noted = service.store.put_email_change(&id, &email, stored, MAIL_AT_MOST_EVERY);
            if let Some(user) = noted.await? {
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
