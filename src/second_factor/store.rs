//! The contracts of what keeps second factors, and logins of which the first step is done.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use auto_impl::auto_impl;

use super::SealedSecret;
use crate::{SharedClock, StoreError, SystemClock, TokenHash, UserId, audit::AuditTrail};

/// Where second factors are kept: verbs of intent, each atomic.
///
/// - Each user has at most one, pending or on. Deleting a user deletes it; a reset or changed password
///   and suspension leave it.
/// - A step of time works once, and so does a recovery code, also where many present it at once:
///   each is used up by comparing and setting.
/// - What fails is a [`StoreError`], soon: unavailable, where trying again may help.
/// - What a verb wrote is durable when it answers, and is carried through even where the caller stops
///   waiting. Clones share their state. No secret is stored that isn't sealed.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::{TokenHash, second_factor::{SealedSecret, SecondFactorStore, TotpBegun}};
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = store.create(ada).await?.id;
/// let secret = SealedSecret::from(b"sealed by SealingKeys".to_vec());
/// assert_eq!(store.begin_totp(&ada, &secret).await?, TotpBegun::Pending);
/// let recovery = TokenHash::of("a recovery code");
/// assert!(store.confirm_totp(&ada, &secret, 7, &[recovery], SystemTime::now()).await?);
///
/// assert!(!store.use_step(&ada, 7).await?); // used up when it confirmed
/// assert!(store.use_step(&ada, 8).await?);
/// assert!(store.use_recovery_code(&ada, &recovery).await?);
/// assert!(!store.use_recovery_code(&ada, &recovery).await?);
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait SecondFactorStore: fmt::Debug + Send + Sync + 'static {
    /// Where time comes from; a [`TotpService`](super::TotpService) takes its clock from here.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }

    /// Where events go, for the [audit](crate::audit): a store writes those of its changes itself, in
    /// their transactions; a service over it notes here what it refused.
    fn audit_trail(&self) -> AuditTrail {
        AuditTrail::new()
    }

    /// Notes a secret that is to be confirmed, in place of one that was not.
    async fn begin_totp(
        &self,
        user: &UserId,
        secret: &SealedSecret,
    ) -> Result<TotpBegun, StoreError>;

    /// What is known of this user's second factor.
    async fn find_totp(&self, user: &UserId) -> Result<Option<StoredTotp>, StoreError>;

    /// Turns on the secret that is pending, if it still is this one, with the step that confirmed it
    /// as the last one used, and these recovery codes; answers whether it did.
    async fn confirm_totp(
        &self,
        user: &UserId,
        secret: &SealedSecret,
        step: u64,
        recovery_codes: &[TokenHash],
        now: SystemTime,
    ) -> Result<bool, StoreError>;

    /// Uses up this step and all before it, if a secret is on and it is later than the last one used;
    /// answers whether it was.
    async fn use_step(&self, user: &UserId, step: u64) -> Result<bool, StoreError>;

    /// Uses up a recovery code; answers whether it was there.
    async fn use_recovery_code(&self, user: &UserId, code: &TokenHash) -> Result<bool, StoreError>;

    /// Puts a secret that was sealed anew in place of the old one, if that still stands.
    async fn replace_secret(
        &self,
        user: &UserId,
        old: &SealedSecret,
        new: &SealedSecret,
    ) -> Result<bool, StoreError>;

    /// Forgets the secret, pending or on, and the recovery codes; answers whether one was on.
    async fn remove_totp(&self, user: &UserId) -> Result<bool, StoreError>;
}

/// What came of a secret that was to be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TotpBegun {
    /// It is to be confirmed.
    Pending,
    /// Another one is on, and stays.
    AlreadyOn,
    /// There is no such user, or the account is suspended.
    NoUser,
}

/// What a store knows of a second factor.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::second_factor::{SealedSecret, StoredTotp};
/// let sealed = SealedSecret::from(vec![7; 53]); // as a store has read it
/// let pending = StoredTotp::new(sealed.clone(), None);
/// let on = StoredTotp::new(sealed, Some(SystemTime::now()));
/// assert!(pending.on_since.is_none() && on.on_since.is_some());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StoredTotp {
    /// The secret.
    pub secret: SealedSecret,
    /// Since when it is on; `None` while it is to be confirmed.
    pub on_since: Option<SystemTime>,
}

impl StoredTotp {
    /// A secret, and since when it is on.
    #[must_use]
    pub fn new(secret: SealedSecret, on_since: Option<SystemTime>) -> Self {
        Self { secret, on_since }
    }
}

/// Where logins wait for their second step: verbs of intent, each atomic.
///
/// - A try is taken before the code is looked at, so that no more codes are tried than may be, also
///   where they come at once.
/// - The verbs that set a user's password, suspend or delete a user, end the user's logins in the same
///   transaction.
/// - Durability, carrying through and clones as for [`SecondFactorStore`].
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{TokenHash, second_factor::{PendingLogin, PendingLoginStore}};
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = store.create(ada).await?.id;
/// let (token, now) = (TokenHash::of("a login token"), SystemTime::now());
/// store.open_login(PendingLogin::new(token, ada.clone(), now + Duration::from_secs(300))).await?;
///
/// assert_eq!(store.take_try(&token, 2, now).await?, Some(ada.clone()));
/// assert_eq!(store.take_try(&token, 2, now).await?, Some(ada));
/// assert_eq!(store.take_try(&token, 2, now).await?, None); // two tries, and no third
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[auto_impl(Arc)]
pub trait PendingLoginStore: fmt::Debug + Send + Sync + 'static {
    /// Where time comes from; a [`LoginSteps`](super::LoginSteps) takes its clock from here.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }

    /// Where events go, for the [audit](crate::audit): a store writes those of its changes itself, in
    /// their transactions; a service over it notes here what it refused.
    fn audit_trail(&self) -> AuditTrail {
        AuditTrail::new()
    }

    /// Notes a login whose first step is done. One of a user who is gone or suspended, or in another
    /// epoch than the login, is not noted.
    async fn open_login(&self, login: PendingLogin) -> Result<(), StoreError>;

    /// Whose login this is, if it waits.
    async fn find_login(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError>;

    /// Takes one of so many tries, and answers whose login it is; `None` where it doesn't wait, or has
    /// none left.
    async fn take_try(
        &self,
        token: &TokenHash,
        at_most: u32,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError>;

    /// Gives back a try that was none.
    async fn give_try_back(&self, token: &TokenHash) -> Result<(), StoreError>;

    /// Ends a login whose second step is done; answers whether it still waited.
    async fn finish_login(&self, token: &TokenHash, now: SystemTime) -> Result<bool, StoreError>;

    /// Forgets logins that ended before `before`, at most so many in one call, and answers how many.
    /// Servers that call it at the same time don't wait for one another.
    async fn delete_expired_logins(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError>;
}

/// A login whose first step is done.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{UserId, second_factor::{LoginToken, PendingLogin}};
/// let (token, ends) = (LoginToken::random()?, SystemTime::now() + Duration::from_secs(300));
/// let login = PendingLogin::new(token.hash(), UserId::from("ada"), ends).with_epoch(Some(3));
/// assert_eq!(login.token, token.hash()); // the token itself is the client's
/// # Ok::<(), tower_warden::StoreError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingLogin {
    /// The hash of what its second step presents.
    pub token: TokenHash,
    /// Who gave the right password.
    pub user_id: UserId,
    /// From when on it is worth nothing.
    pub expires_at: SystemTime,
    /// In which [epoch](crate::user::User::epoch) of the account the first step was done, if that
    /// matters.
    pub epoch: Option<u64>,
}

impl PendingLogin {
    /// The same, whose first step was done in this epoch of the account.
    #[must_use]
    pub fn with_epoch(self, epoch: Option<u64>) -> Self {
        Self { epoch, ..self }
    }

    /// A login to wait until then.
    #[must_use]
    pub fn new(token: TokenHash, user_id: UserId, expires_at: SystemTime) -> Self {
        Self { token, user_id, expires_at, epoch: None }
    }
}
