//! Mail: what is sent, by what, and when.
//!
//! A [`Message`] is handed to an [`Outbox`], which answers at once and has a [`MailSender`] send it
//! afterwards: sending never delays or fails a request.
//!
//! | sender | feature | mail goes |
//! | --- | --- | --- |
//! | `FileMailSender` | `smtp` | into a directory, one RFC 5322 file each: for development and tests |
//! | `SmtpMailSender` | `smtp`, and `tls` for an encrypted connection | to a mail server |

#[cfg(feature = "smtp")]
mod file;
mod lines;
mod message;
mod outbox;
#[cfg(feature = "smtp")]
mod rfc5322;
mod room;
#[cfg(feature = "smtp")]
mod smtp;

#[cfg(feature = "smtp")]
#[cfg_attr(docsrs, doc(cfg(feature = "smtp")))]
pub use file::FileMailSender;
pub use message::{MailError, MailSender, Mailbox, Message};
pub use outbox::Outbox;
#[cfg(feature = "smtp")]
#[cfg_attr(docsrs, doc(cfg(feature = "smtp")))]
pub use smtp::{InvalidSmtpUrl, SmtpMailSender};
