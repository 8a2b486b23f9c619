//! Second factors: one-time codes and recovery codes beside the password, and the login in two steps.
//!
//! A [`TotpService`] sets up, asks and turns off codes of an authenticator app (TOTP, RFC 6238), and
//! [`LoginSteps`] puts them, or a [`SecondFactor`] of your own, between the right password and the
//! session. The rules:
//!
//! 1. Codes have six digits and change every 30 seconds; the one before and the one after are good
//!    too, for clocks that differ. All three are compared, in the same time. A code works once, also
//!    where two present it at once: the step it belongs to, and all before it, are used up.
//! 2. Nothing is on before a first code has shown that the secret has arrived in the app. Ten recovery
//!    codes then let in, once each, who has lost it. They are shown once and stored as hashes.
//! 3. A secret is stored sealed by [`SealingKeys`], and bound to its user: who copies the database can
//!    make no codes, and who can write to it can't give one user the secret of another.
//! 4. After the right password a client gets a [`LoginToken`]. It lives five minutes and dies at its
//!    fifth wrong code, also where many are sent at once; a code that can't be checked is no try. A new
//!    password, suspension and deletion end it.
//! 5. Six digits can be guessed: whoever sends a wrong one must be counted by a limiter, as for a
//!    wrong password.
//!
//! **A deployment** gives all its servers the same sealing keys, and keeps them elsewhere than copies
//! of the database. Without them nobody's authenticator works; recovery codes do.
//!
//! ```
//! use tower_warden::{
//!     Identity, ManualClock, Role,
//!     second_factor::{LoginSteps, SealingKey, SealingKeys, SecondStepError, TotpService},
//!     store::memory::MemoryStore,
//! };
//! # use std::{sync::Arc, time::Duration};
//! # use tower_warden::{Clock, user::{Email, NewUser, PasswordHash, UserStore}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, clock) = (MemoryStore::new(), ManualClock::new());
//! # let hash = PasswordHash::from("$2b$12$…".to_owned());
//! # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, clock.now());
//! # let ada = store.create(ada).await?.id;
//! let keys = SealingKeys::new(SealingKey::random()?); // or SealingKeys::load_or_generate
//! let totp = TotpService::new(store.clone(), keys, "Example").with_clock(Arc::new(clock.clone()));
//! let login = LoginSteps::new(store, totp.clone()).with_clock(Arc::new(clock.clone()));
//!
//! // Without one, the right password is all.
//! let caller = Identity::new(ada.clone(), Role::VIEWER);
//! assert!(login.begin(&caller).await?.is_none());
//!
//! let setup = totp.begin(&ada, "ada@example.com").await?; // a QR code of setup.uri()
//! let recovery_codes = totp.confirm(&ada, &setup.code_at(clock.now())).await?;
//! assert_eq!(recovery_codes.len(), 10);
//!
//! clock.advance(Duration::from_secs(30));
//! let (first, second) = (login.begin(&caller).await?, login.begin(&caller).await?);
//! let (first, second) = (first.ok_or("none is on")?, second.ok_or("none is on")?);
//! let code = setup.code_at(clock.now());
//! let current = |id| async { Ok(Some(Identity::new(id, Role::VIEWER))) }; // in earnest: UserService::find
//! assert_eq!(*login.finish(first.expose(), &code, current).await?.user_id(), ada);
//! let again = login.finish(second.expose(), &code, current).await;
//! assert!(matches!(again, Err(SecondStepError::InvalidCode)));
//! let recovered = login.finish(second.expose(), recovery_codes[0].expose(), current).await?;
//! assert_eq!(*recovered.user_id(), ada);
//! # Ok(())
//! # }
//! ```

mod error;
mod factor;
mod login;
mod recovery;
mod seal;
mod service;
mod store;
mod totp;

pub use error::{SecondFactorError, SecondStepError};
pub use factor::SecondFactor;
pub use login::{LoginSteps, LoginToken};
pub use recovery::RecoveryCode;
pub use seal::{SealedSecret, SealingKey, SealingKeyError, SealingKeys};
pub use service::{TotpService, TotpSetup};
pub use store::{PendingLogin, PendingLoginStore, SecondFactorStore, StoredTotp, TotpBegun};
