//! A message as it travels.

use lettre::{
    Address,
    address::Envelope,
    message::{
        Body, IntoBody, SinglePart,
        header::{ContentTransferEncoding, HeaderName, HeaderValue},
    },
};

use super::{MailError, Mailbox, Message};
use crate::user::Email;

/// The envelope and the bytes of a message.
pub(super) fn render(
    message: &Message,
    sender: &Mailbox,
) -> Result<(Envelope, Vec<u8>), MailError> {
    let (from, to) = (address(sender.email())?, address(message.to())?);
    let envelope = Envelope::new(Some(from.clone()), vec![to.clone()]).map_err(unusable)?;
    let message_id = format!("<{}@{}>", uuid::Uuid::new_v4().simple(), from.domain());
    // Keeps out-of-office notes from answering (RFC 3834).
    let auto_submitted = HeaderName::new_from_ascii_str("Auto-Submitted");
    let rendered = lettre::Message::builder()
        .envelope(envelope.clone())
        .from(lettre::message::Mailbox::new(sender.name().map(ToOwned::to_owned), from))
        .to(to.into())
        .subject(message.subject())
        .message_id(Some(message_id))
        .raw_header(HeaderValue::new(auto_submitted, "auto-generated".to_owned()))
        .singlepart(SinglePart::plain(body(message.text())))
        .map_err(unusable)?;
    Ok((envelope, rendered.formatted()))
}

/// Text that mail may carry as it is (RFC 5322, section 2.1.1: ASCII, lines of at most 998) is sent
/// so: a link in it stands unbroken on its line, where lettre alone would fold it at 76. Other text
/// is made quoted-printable.
fn body(text: &str) -> Body {
    let plain = |line: &str| {
        line.len() <= 998 && line.bytes().all(|b| b == b'\t' || b == b' ' || b.is_ascii_graphic())
    };
    if text.lines().all(plain) {
        let lines: String = text.lines().flat_map(|line| [line, "\r\n"]).collect();
        Body::dangerous_pre_encoded(lines.into_bytes(), ContentTransferEncoding::SevenBit)
    } else {
        text.to_owned().into_body(Some(ContentTransferEncoding::QuotedPrintable))
    }
}

fn address(email: &Email) -> Result<Address, MailError> {
    email.as_str().parse().map_err(unusable)
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> MailError {
    MailError::permanent("the message can't be written as mail", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(to: &str, subject: &str, text: &str) -> String {
        let from = "no-reply@example.com".parse().unwrap();
        let message = Message::new(Email::parse(to).unwrap(), subject, text);
        String::from_utf8(render(&message, &from).unwrap().1).unwrap()
    }

    #[test]
    fn link_stands_unbroken_on_its_line() {
        let link = format!("https://example.com/auth/verify?token={}", "0".repeat(800));
        let mail = rendered("ada@example.com", "Hello", &format!("Open this:\n\n{link}\n"));
        assert!(mail.contains("\r\nContent-Transfer-Encoding: 7bit\r\n"), "{mail}");
        assert!(mail.lines().any(|line| line == link), "{mail}");
    }

    #[test]
    fn text_that_mail_cannot_carry_is_encoded() {
        for text in ["Grüße", "a\rb", "a\0b", &"x".repeat(999)] {
            let mail = rendered("ada@example.com", "Grüße", text);
            assert!(mail.is_ascii() && !mail.contains('\0'), "{mail}");
            assert!(mail.lines().all(|line| line.len() <= 78), "{mail}");
            assert!(!mail.contains("7bit"), "{mail}");
        }
    }

    #[test]
    fn mail_has_the_headers_it_needs() {
        let mail = rendered("ada@example.com", "Hello", "Hi");
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        for header in [
            "From: no-reply@example.com",
            "To: ada@example.com",
            "Subject: Hello",
            "Date: ",
            "Message-ID: <",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(head.lines().any(|line| line.starts_with(header)), "{header}\n{head}");
        }
        assert_eq!(body.trim_end(), "Hi");
    }

    #[test]
    fn sender_may_have_a_name() {
        for (from, header) in [
            ("no-reply@example.com", "From: no-reply@example.com"),
            ("Ada <a@example.com>", "From: Ada <a@example.com>"),
            ("\"Ada, Inc.\" <a@example.com>", "From: =?utf-8?b?QWRhLCBJbmMu?= <a@example.com>"),
            ("Grüße <a@example.com>", "From: =?utf-8?b?R3LDvMOfZQ==?= <a@example.com>"),
        ] {
            let message = Message::new(Email::parse("b@example.com").unwrap(), "Hello", "Hi");
            let mail = render(&message, &from.parse().unwrap()).unwrap().1;
            let mail = String::from_utf8(mail).unwrap();
            assert!(mail.lines().any(|line| line == header), "{mail}");
        }
    }

    #[test]
    fn nothing_becomes_a_header_of_its_own() {
        let mail = rendered(
            "o'neil+{x}|!#$%&*/=?^_`~@example.com",
            "Hello\r\nBcc: eve@example.com\0\n",
            "Hi\r\n\r\nBcc: eve@example.com\r\n",
        );
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("\nBcc") && !head.contains('\0'), "{head}");
        assert!(head.contains("o'neil+{x}|!#$%&*/=?^_`~@example.com"), "{head}");
    }
}
