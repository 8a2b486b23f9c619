//! The login in two steps.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::{PendingLogin, PendingLoginStore, SecondFactor, SecondStepError};
use crate::{
    Identity, OpaqueToken, Origin, SharedClock, StoreError, UserId,
    audit::{Act, AuditEvent},
    signals,
};

/// What the first step of a login leaves in a client's hand for the second.
///
/// ```
/// use tower_warden::second_factor::LoginToken;
/// let token = LoginToken::random()?;
/// assert_eq!(token.expose().len(), 64);
/// assert_eq!(LoginToken::parse(token.expose()).map(|read| read.hash()), Some(token.hash()));
/// assert!(LoginToken::parse("64 other characters").is_none());
/// # Ok::<(), tower_warden::StoreError>(())
/// ```
pub type LoginToken = OpaqueToken<32>;

const TIME_TO_LIVE: Duration = Duration::from_secs(5 * 60);
const TRIES: u32 = 5;

/// The way from the right password to a session, for users with a [`SecondFactor`]. Cheap to clone.
/// See the [module's docs](super).
///
/// ```
/// use tower_warden::{Identity, Role, second_factor::{LoginSteps, SecondFactor, SecondStepError}};
/// # use tower_warden::{StoreError, UserId};
/// # #[derive(Debug)]
/// # struct Watchword;
/// # #[async_trait::async_trait]
/// # impl SecondFactor for Watchword {
/// #     async fn is_on(&self, _: &UserId) -> Result<bool, StoreError> { Ok(true) }
/// #     async fn check(&self, _: &UserId, code: &str) -> Result<bool, StoreError> { Ok(code == "swordfish") }
/// # }
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = store.create(ada).await?.id;
/// let login = LoginSteps::new(store, Watchword); // a SecondFactor of one's own
/// let caller = Identity::new(ada.clone(), Role::VIEWER);
/// let token = login.begin(&caller).await?.ok_or("no second factor is on")?;
/// assert_eq!(login.user_of(token.expose()).await?, Some(ada.clone())); // whom a limiter counts
///
/// let current = |id| async { Ok(Some(Identity::new(id, Role::VIEWER))) }; // in earnest: UserService::find
/// let wrong = login.finish(token.expose(), "catfish", current).await;
/// assert!(matches!(wrong, Err(SecondStepError::InvalidCode)));
/// let caller = login.finish(token.expose(), "swordfish", current).await?; // then TokenService::issue
/// assert_eq!(*caller.user_id(), ada);
/// assert!(login.finish(token.expose(), "swordfish", current).await.is_err()); // works once
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LoginSteps {
    store: Arc<dyn PendingLoginStore>,
    factor: Arc<dyn SecondFactor>,
    clock: SharedClock,
}

impl LoginSteps {
    /// Asks this second factor, and keeps in this store which logins wait for it: for five minutes, or
    /// until the fifth wrong code.
    #[must_use]
    pub fn new(store: impl PendingLoginStore, factor: impl SecondFactor) -> Self {
        Self { clock: store.clock(), store: Arc::new(store), factor: Arc::new(factor) }
    }

    /// Where time comes from, if not from the store's clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// After the right password: what the client needs for the second step, or `None` where this
    /// caller has no second factor, and the login is done. Where all sessions of the user were ended
    /// since the password was looked at, the second step will be refused.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn begin(&self, caller: &Identity) -> Result<Option<LoginToken>, StoreError> {
        let user = caller.user_id();
        if !self.factor.is_on(user).await? {
            return Ok(None);
        }
        let token = LoginToken::random()?;
        let expires_at = self.clock.now() + TIME_TO_LIVE;
        let login = PendingLogin::new(token.hash(), user.clone(), expires_at);
        self.store.open_login(login.with_epoch(caller.epoch())).await?;
        Ok(Some(token))
    }

    /// Whose login this token is, if it waits: whom a limiter counts. Nothing is tried.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn user_of(&self, login_token: &str) -> Result<Option<UserId>, StoreError> {
        match LoginToken::parse(login_token) {
            Some(token) => self.store.find_login(&token.hash(), self.clock.now()).await,
            None => Ok(None),
        }
    }

    /// The second step: who has logged in, with both factors.
    ///
    /// `current` answers who the user is now; `None`, for one who is gone or may no longer come in, is
    /// an invalid code. It is asked before the code is looked at, so that a password which is reset
    /// meanwhile opens no session: before the login is finished the reset ends it, and after that
    /// [`issue`](crate::TokenService::issue) sees that the identity is of an
    /// [epoch](crate::user::User::epoch) before it.
    ///
    /// # Errors
    /// See [`SecondStepError`].
    pub async fn finish<F>(
        &self,
        login_token: &str,
        code: &str,
        current: impl FnOnce(UserId) -> F + Send,
    ) -> Result<Identity, SecondStepError>
    where
        F: Future<Output = Result<Option<Identity>, StoreError>> + Send,
    {
        let outcome = self.step(login_token, code, current).await;
        signals::second_step(match &outcome {
            Ok(_) => "ok",
            Err(SecondStepError::InvalidCode) => "invalid_code",
            Err(SecondStepError::Store(_)) => "failed",
        });
        outcome
    }

    async fn step<F>(
        &self,
        login_token: &str,
        code: &str,
        current: impl FnOnce(UserId) -> F + Send,
    ) -> Result<Identity, SecondStepError>
    where
        F: Future<Output = Result<Option<Identity>, StoreError>> + Send,
    {
        let token = LoginToken::parse(login_token).ok_or(SecondStepError::InvalidCode)?;
        let user = self.store.find_login(&token.hash(), self.clock.now()).await?;
        let caller = current(user.ok_or(SecondStepError::InvalidCode)?).await?;
        let caller = caller.ok_or(SecondStepError::InvalidCode)?;
        // To its end, also where the client hangs up: a code that was used up without a login would be
        // no use to anybody.
        let (steps, code) = (self.clone(), code.to_owned());
        let work = async move { steps.attempt(&token, &code).await };
        let user = tokio::spawn(Origin::inherited(work).in_current_span())
            .await
            .unwrap_or_else(|panic| Err(StoreError::internal(panic).into()))?;
        if *caller.user_id() != user {
            return Err(StoreError::internal("another user was found than has logged in").into());
        }
        Ok(caller)
    }

    async fn attempt(&self, token: &LoginToken, code: &str) -> Result<UserId, SecondStepError> {
        let token = token.hash();
        let user = self.store.take_try(&token, TRIES, self.clock.now()).await?;
        let user = user.ok_or(SecondStepError::InvalidCode)?;
        match self.factor.check(&user, code).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(%user, "second step refused: wrong code");
                self.note_refusal(&user, "invalid_code");
                return Err(SecondStepError::InvalidCode);
            }
            Err(error) => {
                // It was no wrong code. That this fails too is likely, and costs a try.
                let _ = self.store.give_try_back(&token).await;
                return Err(error.into());
            }
        }
        if !self.store.finish_login(&token, self.clock.now()).await? {
            tracing::info!(%user, "second step refused: the login was ended meanwhile");
            self.note_refusal(&user, "ended_meanwhile");
            return Err(SecondStepError::InvalidCode);
        }
        tracing::info!(%user, "logged in with a second factor");
        Ok(user)
    }

    fn note_refusal(&self, user: &UserId, reason: &str) {
        let event = AuditEvent::new(Act::LOGIN, self.clock.now()).refused(reason);
        self.store.audit_trail().note(event.about(user));
    }

    /// Forgets logins that have ended, at most so many, and answers how many. To be called now and
    /// then, again at once where it answers `at_most`.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn delete_expired(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.delete_expired_logins(self.clock.now(), at_most).await
    }
}
