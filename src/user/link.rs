//! Links that are mailed: each works once, for a while, and for one purpose.

use std::{fmt, sync::Arc, time::Duration};

use http::Uri;

use super::{Email, LinkToken, User, UserService, mail::Message};
use crate::{OpaqueToken, StoreError, TokenHash};

/// A user gets at most one link of a purpose in this time.
pub(super) const MAIL_AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// A mail with a link: the page that it opens, and the letter around it.
///
/// ```
/// use tower_warden::user::{LinkMail, mail::Message};
/// let mail = LinkMail::verification("https://example.com/auth/verify")?.with_letter(|letter| {
///     let text = format!("Hello {},\nplease open this link:\n{}\n", letter.user.email, letter.link);
///     Message::new(letter.to.clone(), "Welcome", text)
/// });
/// # Ok::<(), tower_warden::user::InvalidLinkUrl>(())
/// ```
#[derive(Clone)]
pub struct LinkMail {
    url: Arc<str>,
    letter: Arc<dyn Fn(&Letter<'_>) -> Message + Send + Sync>,
}

/// What a letter with a link is about.
///
/// ```
/// use tower_warden::user::{LinkMail, mail::Message};
/// let reset = LinkMail::reset("https://app.example/new-password")?.with_letter(|letter| {
///     let text = format!("Hello {},\n\n{}\n\nIt works once, for half an hour.\n", letter.user.email, letter.link);
///     Message::new(letter.to.clone(), "Your new password", text)
/// });
/// # Ok::<(), tower_warden::user::InvalidLinkUrl>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Letter<'a> {
    /// Whose account it concerns.
    pub user: &'a User,
    /// Whom it goes to: the user's address, or the one that the user wants.
    pub to: &'a Email,
    /// The link, with the token in it.
    pub link: &'a str,
}

/// Text that can't become a link in a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http:// or https:// URL to which a token can be added")]
pub struct InvalidLinkUrl;

impl LinkMail {
    /// The mail that proves the address of a new user. Its link is this URL with `?token=…` added.
    /// Where it leads belongs to the configuration: taken from a request's `Host`, it would lead
    /// wherever an attacker likes.
    ///
    /// # Errors
    /// [`InvalidLinkUrl`] unless it is an absolute `http` or `https` URL in ASCII, without a user, a
    /// password and a fragment, of 800 characters at most (a line of mail holds 998).
    pub fn verification(url: &str) -> Result<Self, InvalidLinkUrl> {
        Self::new(url, "Confirm your e-mail address", |link| {
            format!(
                "Welcome.\n\nPlease open this link to confirm your e-mail address:\n\n{link}\n\n\
                 It works once, and not for long. If you did not register, ignore this message.\n"
            )
        })
    }

    /// The mail by which a forgotten password is set anew.
    ///
    /// # Errors
    /// As for [`verification`](Self::verification).
    pub fn reset(url: &str) -> Result<Self, InvalidLinkUrl> {
        Self::new(url, "Set a new password", |link| {
            format!(
                "Somebody, you we hope, asked to set a new password for your account. This is the \
                 link to do so:\n\n{link}\n\n\
                 It works once, and not for long. If it wasn't you, ignore this message: nothing \
                 has changed.\n"
            )
        })
    }

    /// The mail that goes to the address that a user wants in place of the present one.
    ///
    /// # Errors
    /// As for [`verification`](Self::verification).
    pub fn email_change(url: &str) -> Result<Self, InvalidLinkUrl> {
        Self::new(url, "Confirm your new e-mail address", |link| {
            format!(
                "Please open this link to use this address for your account from now on:\n\n\
                 {link}\n\n\
                 It works once, and not for long. If you did not ask for this, ignore this \
                 message.\n"
            )
        })
    }

    /// The same link in a letter of your own. It is to go to [`Letter::to`].
    #[must_use]
    pub fn with_letter(
        self,
        letter: impl Fn(&Letter<'_>) -> Message + Send + Sync + 'static,
    ) -> Self {
        Self { letter: Arc::new(letter), ..self }
    }

    fn new(
        url: &str,
        subject: &'static str,
        text: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self, InvalidLinkUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidLinkUrl)?;
        let valid = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && url.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
            && url.len() <= 800;
        let url = valid.then(|| url.into()).ok_or(InvalidLinkUrl)?;
        let letter =
            move |letter: &Letter<'_>| Message::new(letter.to.clone(), subject, text(letter.link));
        Ok(Self { url, letter: Arc::new(letter) })
    }

    fn message(&self, user: &User, to: &Email, token: &LinkSecret) -> Message {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let link = format!("{}{separator}token={}", self.url, token.expose());
        (self.letter)(&Letter { user, to, link: &link })
    }
}

impl fmt::Debug for LinkMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkMail").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What a link holds: 32 random bytes in hex. Stores keep the hash of it.
pub type LinkSecret = OpaqueToken<32>;

/// The hash of a token that was presented; nothing for what can't be one.
pub(super) fn link_hash(text: &str) -> Option<TokenHash> {
    LinkSecret::parse(text).map(|token| token.hash())
}

impl UserService {
    /// A new token, and what is stored of it.
    pub(super) fn new_link(&self, ttl: Duration) -> Result<(LinkSecret, LinkToken), StoreError> {
        let secret = LinkSecret::random()?;
        let stored = LinkToken::new(secret.hash(), self.clock.now(), ttl);
        Ok((secret, stored))
    }

    pub(super) fn post_link(
        &self,
        mail: Option<&LinkMail>,
        user: &User,
        to: &Email,
        token: &LinkSecret,
    ) {
        if let (Some(mail), Some(outbox)) = (mail, &self.outbox) {
            outbox.post(mail.message(user, to, token));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Role, UserId};

    #[test]
    fn link_is_the_url_and_the_token() {
        let email = Email::parse("ada@example.com").unwrap();
        let user = User::new(UserId::from("1"), email, Role::VIEWER, SystemTime::UNIX_EPOCH);
        let token = LinkSecret::random().unwrap();
        for (url, start) in [
            ("https://example.com/verify", "https://example.com/verify?token="),
            ("http://[::1]:3000/a/b", "http://[::1]:3000/a/b?token="),
            ("https://example.com/?lang=en", "https://example.com/?lang=en&token="),
        ] {
            let mail = LinkMail::verification(url).unwrap();
            let message = mail.message(&user, &user.email, &token);
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
            assert!(LinkMail::verification(url).is_err(), "{url}");
        }
    }
}
