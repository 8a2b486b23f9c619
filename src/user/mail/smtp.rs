//! Mail by SMTP (RFC 5321).

#![cfg_attr(
    not(feature = "tls"),
    allow(deprecated, reason = "lettre 0.11 has `TlsParameters` without TLS too, and 0.12 won't")
)]

use std::{borrow::Cow, fmt, time::Duration};

use async_trait::async_trait;
use http::{Uri, uri::Authority};
use lettre::{
    address::Envelope,
    transport::smtp::{
        self, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::{MailError, MailSender, Mailbox, Message, rfc5322};

/// The longest that sending one message may take.
const BUDGET: Duration = Duration::from_secs(30);

/// Sends mail to a mail server, one connection for each message, each within 30 s.
///
/// | URL | encryption | port, unless named |
/// | --- | --- | --- |
/// | `smtps://user:password@host` | from the first byte; feature `tls` | 465 |
/// | `smtp://user:password@host` | by STARTTLS, or nothing is sent; feature `tls` | 587 |
/// | `smtp://host?tls=required` | the same, without a password | 587 |
/// | `smtp://host` | none: for a relay on the same machine or network | 25 |
/// | `smtp://user:password@host?tls=none` | none, **not even for the password** | 25 |
///
/// What is special in URLs is percent-encoded in user and password. `Debug` shows neither. The server
/// is greeted (EHLO) by the domain of the sender.
///
/// ```
/// use tower_warden::user::mail::{Mailbox, Outbox, SmtpMailSender};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let from: Mailbox = "Ada's Shop <no-reply@example.com>".parse()?;
/// let sender = SmtpMailSender::new("smtp://localhost:2525", from)?; // connects when there is mail
/// let outbox = Outbox::new(sender); // for UserService::new
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SmtpMailSender {
    server: Server,
    from: Mailbox,
}

/// A URL that names no mail server to send by. It doesn't repeat the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSmtpUrl {
    /// Not a URL, without a host, or with more in it than is understood.
    #[error("not of the form smtp://user:password@host:port or smtps://user:password@host:port")]
    Malformed,
    /// It asks for an encrypted connection, and the feature `tls` is off.
    #[error("an encrypted connection needs the feature `tls`")]
    TlsIsOff,
    /// An encrypted connection can't be had.
    #[error("TLS can't be set up")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SmtpMailSender {
    /// Mail by the server of this URL, from this sender.
    ///
    /// # Errors
    /// [`InvalidSmtpUrl`] for a URL that can't be used. Whether the server is there is found out when
    /// the first message is sent.
    pub fn new(url: &str, from: impl Into<Mailbox>) -> Result<Self, InvalidSmtpUrl> {
        Ok(Self { server: Server::parse(url)?, from: from.into() })
    }
}

impl fmt::Debug for SmtpMailSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server: Server { host, port, .. }, from } = self;
        f.debug_struct("SmtpMailSender")
            .field("host", host)
            .field("port", port)
            .field("from", from)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MailSender for SmtpMailSender {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let (envelope, bytes) = rfc5322::render(message, &self.from)?;
        match timeout(BUDGET, self.server.deliver(self.from.email().domain(), &envelope, &bytes))
            .await
        {
            Ok(delivered) => delivered.map_err(mail_error),
            Err(late) => Err(MailError::temporary("the mail server took too long", late)),
        }
    }
}

#[derive(Clone)]
struct Server {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
enum Encryption {
    None,
    FromTheStart(TlsParameters),
    StartTls(TlsParameters),
}

impl Server {
    fn parse(url: &str) -> Result<Self, InvalidSmtpUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidSmtpUrl::Malformed)?;
        let authority = uri.authority().ok_or(InvalidSmtpUrl::Malformed)?;
        let host = authority.host().trim_matches(['[', ']']);
        let credentials = authority
            .as_str()
            .rsplit_once('@')
            .map(|(user_and_password, _)| credentials(user_and_password))
            .transpose()?;
        let (encryption, default_port) = match (uri.scheme_str(), uri.query()) {
            (Some("smtps"), None) => (Encryption::FromTheStart(tls(host)?), SUBMISSIONS_PORT),
            (Some("smtp"), Some("tls=none")) => (Encryption::None, SMTP_PORT),
            (Some("smtp"), None) if credentials.is_none() => (Encryption::None, SMTP_PORT),
            (Some("smtp"), None | Some("tls=required")) => {
                (Encryption::StartTls(tls(host)?), SUBMISSION_PORT)
            }
            _ => return Err(InvalidSmtpUrl::Malformed),
        };
        if host.is_empty() || !matches!(uri.path(), "" | "/") {
            return Err(InvalidSmtpUrl::Malformed);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port(authority)?.unwrap_or(default_port),
            encryption,
            credentials,
        })
    }

    /// Hands over one message.
    ///
    /// Not by lettre's pooled transport: it would put a connection whose message was cut short by the
    /// deadline back into its pool, in the middle of that message. Here dropping the future closes
    /// the connection.
    async fn deliver(
        &self,
        own_name: &str,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(), smtp::Error> {
        let hello = ClientId::Domain(own_name.to_owned());
        let (wrapper, start_tls) = match &self.encryption {
            Encryption::None => (None, None),
            Encryption::FromTheStart(tls) => (Some(tls.clone()), None),
            Encryption::StartTls(tls) => (None, Some(tls.clone())),
        };
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, None, &hello, wrapper, None).await?;
        if let Some(tls) = start_tls {
            connection.starttls(tls, &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        connection.send(envelope, message).await?;
        connection.abort().await; // QUIT and close: the message is theirs, whatever they say to it
        Ok(())
    }
}

/// The port that is named. [`Authority::port_u16`] takes one that can't be for none.
fn port(authority: &Authority) -> Result<Option<u16>, InvalidSmtpUrl> {
    let text = authority.as_str();
    let place = text.rsplit_once('@').map_or(text, |(_, place)| place);
    match place.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
        None | Some("") => Ok(None),
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => Err(InvalidSmtpUrl::Malformed),
            Ok(port) => Ok(Some(port)),
        },
    }
}

fn credentials(user_and_password: &str) -> Result<Credentials, InvalidSmtpUrl> {
    let decoded = |text| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(Cow::into_owned).map_err(|_| InvalidSmtpUrl::Malformed)
    };
    let (user, password) = user_and_password.split_once(':').ok_or(InvalidSmtpUrl::Malformed)?;
    Ok(Credentials::new(decoded(user)?, decoded(password)?))
}

#[cfg(feature = "tls")]
fn tls(host: &str) -> Result<TlsParameters, InvalidSmtpUrl> {
    TlsParameters::new(host.to_owned()).map_err(|error| InvalidSmtpUrl::Tls(error.into()))
}

#[cfg(not(feature = "tls"))]
fn tls(_: &str) -> Result<TlsParameters, InvalidSmtpUrl> {
    Err(InvalidSmtpUrl::TlsIsOff)
}

/// What the server said may repeat the address, so the summary takes no more of it than the code.
fn mail_error(error: smtp::Error) -> MailError {
    let summary = match error.status() {
        Some(code) => format!("the mail server answered {code}"),
        None if error.is_response() => "the mail server's answer made no sense".to_owned(),
        None => format!("the mail server can't be used: {error}"),
    };
    if error.is_permanent() {
        MailError::permanent(summary, error)
    } else {
        MailError::temporary(summary, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Server, InvalidSmtpUrl> {
        Server::parse(url)
    }

    #[test]
    fn url_names_host_port_and_credentials() {
        for (url, host, port, user) in [
            ("smtp://mail.example.com", "mail.example.com", 25, None),
            ("smtp://127.0.0.1:2525/", "127.0.0.1", 2525, None),
            ("smtp://[::1]:2525", "::1", 2525, None),
            ("smtp://u%40x.de:p%3A%2Fw@host?tls=none", "host", 25, Some(("u@x.de", "p:/w"))),
        ] {
            let server = parse(url).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{url}");
            let credentials = user.map(|(u, p)| Credentials::new(u.to_owned(), p.to_owned()));
            assert_eq!(server.credentials, credentials, "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "mail.example.com",
            "http://host",
            "smtp://",
            "smtp:///path",
            "smtp://host/name",
            "smtp://host?tls=maybe",
            "smtps://host?tls=required",
            "smtp://secret@host",
            "smtp://u:%ff@host",
            "smtp://host:99999",
            "smtp://u:p@[::1]:0?tls=none",
        ] {
            let error = parse(url).err().unwrap();
            assert!(matches!(error, InvalidSmtpUrl::Malformed), "{url}: {error:?}");
        }
        let sender = SmtpMailSender::new("smtp://user:secret@host?tls=none", from()).unwrap();
        let shown = format!("{sender:?}");
        assert!(shown.contains("host") && !shown.contains("secret") && !shown.contains("user"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn encryption_is_as_the_url_says() {
        let server = parse("smtps://mail.example.com").unwrap();
        assert_eq!(server.port, 465);
        assert!(matches!(server.encryption, Encryption::FromTheStart(_)));
        let server = parse("smtp://mail.example.com?tls=required").unwrap();
        assert_eq!(server.port, 587);
        assert!(matches!(server.encryption, Encryption::StartTls(_)));
        let server = parse("smtp://user:password@mail.example.com").unwrap();
        assert_eq!(server.port, 587);
        assert!(matches!(server.encryption, Encryption::StartTls(_)));
        for url in ["smtp://host", "smtp://host?tls=none", "smtp://user:password@host?tls=none"] {
            assert!(matches!(parse(url).unwrap().encryption, Encryption::None), "{url}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn encryption_without_the_feature_is_an_error() {
        for url in ["smtps://host", "smtp://host?tls=required", "smtp://user:password@host"] {
            assert!(matches!(parse(url), Err(InvalidSmtpUrl::TlsIsOff)), "{url}");
        }
    }

    fn from() -> Mailbox {
        "no-reply@example.com".parse().unwrap()
    }
}
