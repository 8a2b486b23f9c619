//! Mail by SMTP.

use std::{error::Error, time::Duration};

use tokio::net::TcpListener;
use tower_warden::user::mail::{MailSender, Outbox, SmtpMailSender};

use crate::{assert_is_message, email, message, server::MailServer};

/// Longer than any test takes.
const SOON: Duration = Duration::from_secs(10);

fn sender(url: &str) -> SmtpMailSender {
    SmtpMailSender::new(url, email("no-reply@example.com")).unwrap()
}

#[tokio::test]
async fn message_arrives_as_it_was_written() {
    let server = MailServer::start(&[]).await;
    sender(&format!("smtp://{}", server.address)).send(&message()).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_is_message(&mails[0]);
    let commands = server.commands();
    let all = [
        "EHLO example.com",
        "MAIL FROM:<no-reply@example.com>",
        "RCPT TO:<ada@example.com>",
        "DATA",
        "QUIT",
    ];
    assert_eq!(commands, all);
}

#[tokio::test]
async fn user_and_password_of_the_url_are_used() {
    let server = MailServer::start(&[]).await;
    let url = format!("smtp://ada%40example.com:p%3Aw@{}?tls=none", server.address);
    sender(&url).send(&message()).await.unwrap();
    // "\0ada@example.com\0p:w" in Base64 (RFC 4616)
    let auth = "AUTH PLAIN AGFkYUBleGFtcGxlLmNvbQBwOnc=".to_owned();
    assert!(server.commands().contains(&auth), "{:?}", server.commands());
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn password_is_not_sent_in_clear() {
    let server = MailServer::start(&[]).await;
    let url = format!("smtp://ada%40example.com:p%3Aw@{}", server.address);
    let error = sender(&url).send(&message()).await.unwrap_err();
    assert!(!error.is_permanent(), "the server may learn STARTTLS");
    let commands = server.commands();
    assert!(commands.iter().all(|command| command.starts_with("EHLO ")), "{commands:?}");
}

#[tokio::test]
async fn outbox_tries_again_until_the_server_takes_the_message() {
    let server = MailServer::start(&["451 not now", "421 too busy"]).await;
    let outbox = Outbox::new(sender(&format!("smtp://{}", server.address)))
        .with_pauses([Duration::ZERO, Duration::ZERO]);
    outbox.post(message());
    let sent = async {
        while outbox.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, sent).await.unwrap();
    assert_eq!(recipients(&server), 3);
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_is_message(&mails[0]);
}

#[tokio::test]
async fn outbox_gives_up_what_the_server_refuses_for_good() {
    let server = MailServer::start(&["550 no such mailbox: ada@example.com"]).await;
    let sender = sender(&format!("smtp://{}", server.address));
    let outbox = Outbox::new(sender).with_pauses([Duration::ZERO; 4]);
    outbox.post(message());
    assert_eq!(outbox.close(SOON).await, 0);
    assert_eq!((recipients(&server), server.mails().len()), (1, 0));
}

#[tokio::test]
async fn error_tells_the_code_and_keeps_the_address_to_its_source() {
    let server = MailServer::start(&["550 no such mailbox: ada@example.com", "451 later"]).await;
    let sender = sender(&format!("smtp://{}", server.address));
    for (code, permanent) in [("550", true), ("451", false)] {
        let error = sender.send(&message()).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent);
        assert_eq!(error.to_string(), format!("the mail server answered {code}"));
        assert_eq!(error.source().unwrap().to_string().contains("ada@example.com"), permanent);
    }
}

#[tokio::test]
async fn server_that_is_not_there_may_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = sender(&format!("smtp://user:secret@{address}?tls=none"))
        .send(&message())
        .await
        .unwrap_err();
    assert!(!error.is_permanent());
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_is_given_30_seconds() {
    // It accepts, since the system does, and says nothing. Nothing else goes on, so the paused clock
    // moves by itself.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begin = tokio::time::Instant::now();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let error = sender(&url).send(&message()).await.unwrap_err();
    assert_eq!(error.to_string(), "the mail server took too long");
    assert!(!error.is_permanent());
    assert_eq!(begin.elapsed().as_secs(), 30);
}

fn recipients(server: &MailServer) -> usize {
    server.commands().iter().filter(|command| command.starts_with("RCPT ")).count()
}
