//! Accounts for life, the library's side of them: register, verify the address, log in, forget the
//! password, change it, move to another address, be suspended, be deleted. `cargo run --example
//! accounts` goes through all of it; mail is kept in a drawer instead of being sent.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_warden::{
    Identity, TokenService, UserService,
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenPair},
    user::{
        BcryptHasher, HashingPool, LinkMail, LoginError, Notice, Password, UserPage,
        mail::{MailError, MailSender, Message, Outbox},
    },
};

/// Keeps mail instead of sending it.
#[derive(Clone, Debug, Default)]
struct Drawer(Arc<Mutex<Vec<Message>>>);

#[async_trait::async_trait]
impl MailSender for Drawer {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push(message.clone());
        Ok(())
    }
}

impl Drawer {
    /// The token of the link in the next mail to this address. Mail is sent after the answer.
    async fn token_for(&self, address: &str) -> String {
        loop {
            let mails = std::mem::take(&mut *self.0.lock().unwrap_or_else(|e| e.into_inner()));
            let to = |mail: &&Message| mail.to().as_str() == address;
            let lines = mails.iter().filter(to).flat_map(|mail| mail.text().lines());
            if let Some((_, token)) =
                lines.filter_map(|line| line.split_once("?token=")).next_back()
            {
                return token.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // One store keeps users and sessions, so that what ends both is one transaction.
    let (store, drawer) = (MemoryStore::new(), Drawer::default());
    let outbox = Outbox::new(drawer.clone());
    let hashing = HashingPool::new(BcryptHasher::new(4)?)?; // in production: BcryptHasher::default()
    let verification = LinkMail::verification("https://app.example/verify")?;
    let users = UserService::new(store.clone(), hashing, verification, outbox.clone())
        .with_reset_mail(LinkMail::reset("https://app.example/reset")?)
        .with_email_change_mail(LinkMail::email_change("https://app.example/new-address")?)
        .with_notices(|user, notice: Notice| {
            let text = format!("What happened to your account: {notice:?}\n");
            Some(Message::new(user.email.clone(), "About your account", text))
        });
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "accounts", "api", store);

    // Register, and prove the address.
    let (address, first) = ("ada@example.com", || Password::from("Correct-Horse-1"));
    users.register(address, first()).await?;
    let early = users.authenticate(address, first()).await;
    assert!(matches!(early, Err(LoginError::EmailNotVerified)));
    users.verify_email(&drawer.token_for(address).await).await?;

    // Log in, on two devices. A second factor of one's own would stand between the two calls.
    let login = async || -> Result<TokenPair, Box<dyn Error>> {
        let ada = users.authenticate(address, first()).await?;
        Ok(tokens.issue(&Identity::from(&ada).with_amr(["pwd"])).await?)
    };
    let (phone, laptop) = (login().await?, login().await?);
    let ada = tokens.verify(laptop.access_token())?;
    let id = ada.user_id();

    // Change the password: this session goes on, the other has ended.
    let second = || Password::from("Another-Horse-2");
    let checked = users.check_password(id, first()).await?;
    let user = users.change_password(checked, second(), ada.session_id()).await?;
    let laptop = tokens.renew(laptop.session_id(), &Identity::from(&user)).await?;
    assert!(tokens.verify(phone.access_token()).is_err());
    assert!(tokens.verify(laptop.access_token()).is_ok());

    // Forget it: the link ends every session.
    users.forgot_password(address).await?;
    users.reset_password(&drawer.token_for(address).await, first()).await?;
    assert!(tokens.verify(laptop.access_token()).is_err());

    // Move to another address, once that is confirmed.
    let checked = users.check_password(id, first()).await?;
    users.change_email_checked(checked, "ada@new.example").await?;
    let moved = users.confirm_email(&drawer.token_for("ada@new.example").await).await?;
    assert_eq!(moved.email.as_str(), "ada@new.example");

    // What an admin does.
    users.suspend(id).await?;
    let closed = users.authenticate("ada@new.example", first()).await;
    assert!(matches!(closed, Err(LoginError::Suspended)));
    users.unsuspend(id).await?;
    assert_eq!(users.list(&UserPage::new(50)).await?.len(), 1);
    let checked = users.check_password(id, first()).await?;
    users.delete_checked(checked).await?;
    assert!(users.find_by_email("ada@new.example").await?.is_none());

    outbox.close(Duration::from_secs(5)).await;
    println!("registered, verified, changed, reset, moved, suspended, deleted");
    Ok(())
}
