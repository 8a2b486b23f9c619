//! How addresses are proved: by a link, mailed to them, that works once.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Uri;

use super::{Email, User, UserService, VerificationToken, mail::Message, service::carry_through};
use crate::{OpaqueToken, StoreError, TokenHash};

/// A user gets at most one link in this time.
const MAIL_AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// The mail with the link that proves an address.
///
/// ```
/// use tower_warden::user::{VerificationMail, mail::Message};
/// let mail = VerificationMail::new("https://example.com/auth/verify")?.with_letter(|user, link| {
///     Message::new(user.email.clone(), "Welcome", format!("Please open this link:\n{link}\n"))
/// });
/// # Ok::<(), tower_warden::user::InvalidVerificationUrl>(())
/// ```
#[derive(Clone)]
pub struct VerificationMail {
    url: Arc<str>,
    letter: Arc<Letter>,
}

type Letter = dyn Fn(&User, &str) -> Message + Send + Sync;

/// Text that can't become a link in a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http:// or https:// URL to which a token can be added")]
pub struct InvalidVerificationUrl;

impl VerificationMail {
    /// A mail whose link is this URL with `?token=…` added. Where it leads belongs to the
    /// configuration: taken from a request's `Host`, it would lead wherever an attacker likes.
    ///
    /// # Errors
    /// [`InvalidVerificationUrl`] unless it is an absolute `http` or `https` URL in ASCII, without a
    /// fragment, of 800 characters at most (a line of mail holds 998).
    pub fn new(url: &str) -> Result<Self, InvalidVerificationUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidVerificationUrl)?;
        let valid = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && url.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
            && url.len() <= 800;
        let url = valid.then(|| url.into()).ok_or(InvalidVerificationUrl)?;
        Ok(Self { url, letter: Arc::new(default_letter) })
    }

    /// The same link in a letter of your own: a function of the user and the link.
    #[must_use]
    pub fn with_letter(
        self,
        letter: impl Fn(&User, &str) -> Message + Send + Sync + 'static,
    ) -> Self {
        Self { letter: Arc::new(letter), ..self }
    }

    fn message(&self, user: &User, token: &OpaqueToken<32>) -> Message {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let link = format!("{}{separator}token={}", self.url, token.expose());
        (self.letter)(user, &link)
    }
}

impl fmt::Debug for VerificationMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationMail").field("url", &self.url).finish_non_exhaustive()
    }
}

fn default_letter(user: &User, link: &str) -> Message {
    let text = format!(
        "Welcome.\n\
         \n\
         Please open this link to confirm your e-mail address:\n\
         \n\
         {link}\n\
         \n\
         It works once, and not for long. If you did not register, ignore this message.\n"
    );
    Message::new(user.email.clone(), "Confirm your e-mail address", text)
}

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
        let token = parse_token(token)?;
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
        let token = parse_token(token)?;
        let user = self.store.find_verification(&token, self.clock.now()).await?;
        user.map(drop).ok_or(VerifyError::InvalidToken)
    }

    /// Mails an account that isn't verified a new link, in place of the old one, at most once a
    /// minute, the mail of the registration included. Whether there is such an account isn't told.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn resend_verification(&self, email: &str) -> Result<(), StoreError> {
        let Ok(email) = Email::parse(email) else {
            return Ok(());
        };
        let proof = Proof::new(self.clock.now(), self.verification_ttl)?;
        let service = self.clone();
        carry_through(async move {
            let renewed =
                service.store.renew_verification(&email, proof.stored, MAIL_AT_MOST_EVERY).await?;
            if let Some(user) = renewed {
                service.mail_proof(&user, &proof);
            }
            Ok(())
        })
        .await
    }

    pub(super) fn mail_proof(&self, user: &User, proof: &Proof) {
        self.outbox.post(self.verification_mail.message(user, &proof.token));
    }
}

/// A new token, and what is stored of it.
pub(super) struct Proof {
    token: OpaqueToken<32>,
    pub(super) stored: VerificationToken,
}

impl Proof {
    pub(super) fn new(now: SystemTime, ttl: Duration) -> Result<Self, StoreError> {
        let token = OpaqueToken::random()?;
        let stored =
            VerificationToken { hash: token.hash(), created_at: now, expires_at: now + ttl };
        Ok(Self { token, stored })
    }
}

fn parse_token(text: &str) -> Result<TokenHash, VerifyError> {
    OpaqueToken::<32>::parse(text).map(|token| token.hash()).ok_or(VerifyError::InvalidToken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, UserId};

    #[test]
    fn link_is_the_url_and_the_token() {
        let email = Email::parse("ada@example.com").unwrap();
        let user = User::new(UserId::from("1"), email, Role::VIEWER, SystemTime::UNIX_EPOCH);
        let token = OpaqueToken::<32>::random().unwrap();
        for (url, start) in [
            ("https://example.com/verify", "https://example.com/verify?token="),
            ("http://[::1]:3000/a/b", "http://[::1]:3000/a/b?token="),
            ("https://example.com/?lang=en", "https://example.com/?lang=en&token="),
        ] {
            let message = VerificationMail::new(url).unwrap().message(&user, &token);
            let link = format!("{start}{}", token.expose());
            assert!(message.text().lines().any(|line| line == link), "{}", message.text());
        }
    }

    #[test]
    fn url_without_a_host_or_with_a_line_break_is_refused() {
        let long = format!("https://example.com/{}", "x".repeat(800));
        for url in [
            "",
            "example.com/verify",
            "/verify",
            "ftp://example.com/verify",
            "https:///verify",
            "https://example.com/a b",
            "https://example.com/a\r\nb",
            "https://example.com/ä",
            "https://example.com/#verify",
            &long,
        ] {
            assert!(VerificationMail::new(url).is_err(), "{url}");
        }
    }
}
