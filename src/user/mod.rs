//! Accounts: registration, login, passwords, and proof of addresses.
//!
//! [`UserService`] registers users, checks their passwords and proves their addresses, over a
//! [`UserStore`] of your choice. Its rules:
//!
//! 1. A password follows the [`PasswordPolicy`], all of whose objections come at once. It is hashed
//!    by a [`PasswordHasher`] on the threads of a [`HashingPool`], a few at a time, so that a flood
//!    of logins leaves the rest of the server as fast as it was.
//! 2. A login with an unknown address costs as much as one with a wrong password, and is refused in
//!    the same way. A store that fails is an error of its own, never a wrong password.
//! 3. A new user is a viewer without a plan, and can't log in before the address is proved, by a
//!    link that works once and for 24 hours. Stores know only a hash of it.
//! 4. [Mail](mail) is sent after the answer. It is tried a few times, and never delays or fails a
//!    request.
//! 5. Logs name users by their identifier: no address, password or token is in them.
//!
//! What a deployment must know: a hash at bcrypt's cost 12 takes 0.2 s of a core, and a login is one
//! hash. Put a limiter by client IP before it. Close the [`Outbox`](mail::Outbox) before the program
//! ends, or what waits in it is lost.
//!
//! ```
//! use tower_warden::{
//!     store::memory::MemoryStore,
//!     user::{
//!         mail::{MailError, MailSender, Message, Outbox},
//!         BcryptHasher, Email, HashingPool, LoginError, Password, UserService, LinkMail,
//!     },
//! };
//! # use std::{sync::{Arc, Mutex}, time::Duration};
//!
//! /// Keeps mail instead of sending it.
//! #[derive(Clone, Debug, Default)]
//! struct Drawer(Arc<Mutex<Vec<Message>>>);
//!
//! #[async_trait::async_trait]
//! impl MailSender for Drawer {
//!     async fn send(&self, message: &Message) -> Result<(), MailError> {
//!         self.0.lock().unwrap().push(message.clone());
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let drawer = Drawer::default();
//! let outbox = Outbox::new(drawer.clone());
//! let users = UserService::new(
//!     MemoryStore::new(),
//!     HashingPool::new(BcryptHasher::new(4)?)?, // 4 is for tests: use BcryptHasher::default()
//!     LinkMail::verification("https://example.com/auth/verify")?,
//!     outbox.clone(),
//! );
//!
//! let password = Password::from("Correct-Horse-1");
//! users.register(&Email::parse("ada@example.com")?, password.clone()).await?;
//! let early = users.authenticate("ada@example.com", password.clone()).await;
//! assert!(matches!(early, Err(LoginError::EmailNotVerified)));
//!
//! outbox.close(Duration::from_secs(10)).await;
//! let mail = drawer.0.lock().unwrap().remove(0);
//! let token = mail.text().lines().find_map(|line| line.split_once("?token=")).unwrap().1;
//! users.verify_email(token).await?;
//!
//! let ada = users.authenticate(" Ada@Example.COM", password).await?;
//! assert!(ada.email_verified);
//! let wrong = users.authenticate("ada@example.com", Password::from("Wrong-Horse-1")).await;
//! assert!(matches!(wrong, Err(LoginError::InvalidCredentials)));
//! # Ok(())
//! # }
//! ```

mod account;
mod acts;
mod address;
mod change;
mod email;
mod forgotten;
mod hashing_pool;
mod judge;
mod link;
mod login;
pub mod mail;
mod notice;
mod password;
mod registration;
mod service;
mod store;
mod verification;

pub use account::{PasswordHash, User};
pub(crate) use acts::acts;
pub use change::{
    EnsuredAdmin, LinkToken, NewUser, PasswordChange, PasswordSet, UserChange, UserChanged,
    UserCursor, UserPage,
};
pub use email::{Email, InvalidEmail};
pub use forgotten::{ChangePasswordError, CheckPasswordError, CheckedPassword, ResetError};
pub use hashing_pool::{HashingError, HashingPool};
pub(crate) use judge::{judge_change, judge_deletion};
pub use link::{InvalidLinkUrl, Letter, LinkMail, LinkSecret};
pub use login::LoginError;
pub use notice::Notice;
pub use password::{
    BcryptHasher, HashError, InvalidCost, Password, PasswordHasher, PasswordPolicy, StandardPolicy,
    Violation,
};
pub use registration::RegisterError;
pub use service::UserService;
pub use store::{CreateUserError, EmailChangeError, UpdateUserError, UserStore};
pub use verification::VerifyError;

use notice::Notices;
