//! The senders of mail: into files, and to a mail server of our own.

#![cfg(feature = "smtp")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod file;
mod server;
mod smtp;

use tower_warden::user::{Email, mail::Message};

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

/// The link of a message as it is sent; longer than the 76 characters at which mail is often folded.
const LINK: &str = "https://example.com/auth/verify?token=\
                    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn message() -> Message {
    let text = format!("Please open this link:\n\n{LINK}\n\n.and a line that begins with a dot\n");
    Message::new(email("ada@example.com"), "Confirm your\r\nBcc: eve@example.com", text)
}

/// Asserts that this is [`message`], as RFC 5322 has it.
fn assert_is_message(mail: &str) {
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    for header in [
        "From: no-reply@example.com",
        "To: ada@example.com",
        "Subject: Confirm your  Bcc: eve@example.com",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
    ] {
        assert_eq!(
            head.split("\r\n").filter(|line| *line == header).count(),
            1,
            "{header}: {head}"
        );
    }
    let names = head.split("\r\n").map(|line| line.split_once(": ").unwrap().0);
    assert!(!names.clone().any(|name| name.eq_ignore_ascii_case("bcc")), "{head}");
    for name in ["Date", "Message-ID"] {
        assert_eq!(names.clone().filter(|found| *found == name).count(), 1, "{name}: {head}");
    }
    assert_eq!(body.split("\r\n").filter(|line| *line == LINK).count(), 1, "{body}");
    assert!(body.contains("\r\n.and a line that begins with a dot\r\n"), "{body}");
    assert!(!mail.replace("\r\n", "").contains(['\r', '\n']), "a line ends with less than CRLF");
}
