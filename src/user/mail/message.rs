//! What is sent, and what sends it.

use std::{borrow::Cow, error::Error, fmt, str::FromStr};

use async_trait::async_trait;
use auto_impl::auto_impl;

use crate::user::{Email, InvalidEmail};

/// A letter in plain text. It may hold a token, so `Debug` shows the subject only.
///
/// ```
/// use tower_warden::user::{Email, mail::Message};
/// let message = Message::new(Email::parse("ada@example.com")?, "Hello\r\nBcc: x@y.zz", "Hi Ada,\n");
/// assert_eq!(message.subject(), "Hello  Bcc: x@y.zz");
/// # Ok::<(), tower_warden::user::InvalidEmail>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Message {
    to: Email,
    subject: String,
    text: String,
}

impl Message {
    /// A letter. Control characters in the subject become spaces, so that it stays one header.
    #[must_use]
    pub fn new(to: Email, subject: &str, text: impl Into<String>) -> Self {
        Self { to, subject: subject.replace(char::is_control, " "), text: text.into() }
    }

    /// Whom it is for.
    #[must_use]
    pub fn to(&self) -> &Email {
        &self.to
    }

    /// What it is about: one line.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Who mail is from: an address, and perhaps a name that mail programs show.
///
/// ```
/// use tower_warden::user::mail::Mailbox;
/// let from: Mailbox = "Ada's Shop <no-reply@example.com>".parse()?;
/// assert_eq!((from.name(), from.email().as_str()), (Some("Ada's Shop"), "no-reply@example.com"));
/// # Ok::<(), tower_warden::user::InvalidEmail>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    name: Option<Box<str>>,
    email: Email,
}

impl Mailbox {
    /// What mail programs show instead of the address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address.
    #[must_use]
    pub fn email(&self) -> &Email {
        &self.email
    }
}

impl From<Email> for Mailbox {
    fn from(email: Email) -> Self {
        Self { name: None, email }
    }
}

/// Reads `address`, `Name <address>` or `"Name" <address>`.
impl FromStr for Mailbox {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let Some((name, address)) = text.trim().strip_suffix('>').and_then(|t| t.rsplit_once('<'))
        else {
            return Email::parse(text).map(Self::from);
        };
        let name = name.trim();
        let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let name = unquoted.unwrap_or(name);
        if name.chars().any(char::is_control) {
            return Err(InvalidEmail);
        }
        let name = (!name.is_empty()).then(|| name.into());
        Ok(Self { name, email: Email::parse(address)? })
    }
}

/// Sends mail: hands it to whoever takes it from there.
///
/// It gives up within a minute or so, since few are sent at once, and a future of it that is
/// dropped sends nothing half.
///
/// ```
/// use tower_warden::user::{Email, mail::{MailError, MailSender, Message}};
///
/// /// Hands mail to a provider's queue, which may be full.
/// #[derive(Debug)]
/// struct Provider(tokio::sync::mpsc::Sender<String>);
///
/// #[async_trait::async_trait]
/// impl MailSender for Provider {
///     async fn send(&self, message: &Message) -> Result<(), MailError> {
///         let letter = format!("To: {}\n\n{}", message.to(), message.text());
///         self.0.try_send(letter).map_err(|_| MailError::temporary("the queue is full", "try later"))
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (queue, _provider) = tokio::sync::mpsc::channel(1);
/// let (provider, letter) = (Provider(queue), Message::new(Email::parse("ada@example.com")?, "Hello", "Hi\n"));
/// assert!(provider.send(&letter).await.is_ok());
/// assert!(provider.send(&letter).await.is_err_and(|error| !error.is_permanent()));
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait MailSender: fmt::Debug + Send + Sync + 'static {
    /// Sends one message.
    ///
    /// # Errors
    /// [`MailError::temporary`] where it may work later, [`MailError::permanent`] where it won't.
    async fn send(&self, message: &Message) -> Result<(), MailError>;
}

/// A message could not be sent.
///
/// ```
/// use tower_warden::user::mail::MailError;
/// let full = MailError::temporary("the mailbox is full", "452 4.2.2 <ada@example.com>: over quota");
/// assert!(!full.is_permanent()); // tried again
/// assert_eq!(full.to_string(), "the mailbox is full"); // what logs show
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{summary}")]
pub struct MailError {
    summary: Cow<'static, str>,
    permanent: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl MailError {
    /// The same message may be taken later.
    ///
    /// The summary is what logs show, so it names neither the address nor anything of the text. The
    /// source may: mail servers like to repeat what they refuse.
    pub fn temporary(
        summary: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { summary: summary.into(), permanent: false, source: source.into() }
    }

    /// The message won't be taken, however often it is tried. The summary is as in
    /// [`temporary`](Self::temporary).
    pub fn permanent(
        summary: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { permanent: true, ..Self::temporary(summary, source) }
    }

    /// Whether trying again is no use.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}
