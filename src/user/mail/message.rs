//! What is sent, and what sends it.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use async_trait::async_trait;

use crate::user::Email;

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

/// Sends mail: hands it to whoever takes it from there.
///
/// It gives up within a minute or so, since few are sent at once, and a future of it that is
/// dropped sends nothing half.
#[async_trait]
pub trait MailSender: fmt::Debug + Send + Sync + 'static {
    /// Sends one message.
    ///
    /// # Errors
    /// [`MailError::temporary`] where it may work later, [`MailError::permanent`] where it won't.
    async fn send(&self, message: &Message) -> Result<(), MailError>;
}

#[async_trait]
impl<S: MailSender + ?Sized> MailSender for Arc<S> {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        (**self).send(message).await
    }
}

/// A message could not be sent.
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
