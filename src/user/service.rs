//! What the register offers.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::{
    CheckedPassword, Email, HashingPool, LinkMail, Notice, Notices, Password, PasswordPolicy,
    StandardPolicy, UpdateUserError, User, UserChange, UserChanged, UserPage, UserStore, Violation,
    mail::{Message, Outbox},
};
use crate::{
    Origin, SharedClock, StoreError, UserId,
    audit::{Act, AuditEvent},
};

/// Registers users, checks their passwords, verifies their addresses, and changes what they are.
/// Cheap to clone; not a `tower::Service`. See the [module's docs](super).
///
/// ```
/// use tower_warden::{
///     Identity, Plan, Role, UserService, store::memory::MemoryStore,
///     user::{BcryptHasher, HashingPool, LoginError, Password, UserChange},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hashing = HashingPool::new(BcryptHasher::new(4)?)?; // in earnest: BcryptHasher::default()
/// let users = UserService::without_mail(MemoryStore::new(), hashing);
/// let password = || Password::from("Correct-Horse-1");
///
/// // Somebody you invited, who pays.
/// let ada = users.create_verified("ada@example.com", password(), Role::EDITOR).await?;
/// users.update(&ada.id, UserChange::new().with_plan(Some(Plan::PAID))).await?;
///
/// let caller = Identity::from(&users.authenticate("Ada@Example.com", password()).await?);
/// assert_eq!((caller.role(), caller.plan()), (&Role::EDITOR, Some(&Plan::PAID)));
///
/// users.suspend(&ada.id).await?;
/// let closed = users.authenticate("ada@example.com", password()).await;
/// assert!(matches!(closed, Err(LoginError::Suspended)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct UserService {
    pub(super) store: Arc<dyn UserStore>,
    pub(super) hashing: HashingPool,
    pub(super) verification_mail: Option<LinkMail>,
    pub(super) reset_mail: Option<LinkMail>,
    pub(super) email_change_mail: Option<LinkMail>,
    pub(super) notices: Notices,
    pub(super) outbox: Option<Outbox>,
    pub(super) policy: Arc<dyn PasswordPolicy>,
    pub(super) clock: SharedClock,
    pub(super) verification_ttl: Duration,
    pub(super) reset_ttl: Duration,
    pub(super) email_change_ttl: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl UserService {
    /// A service over this store. New users verify their address within 24 hours, by the link in the
    /// mail that goes into the outbox; passwords follow the [`StandardPolicy`].
    #[must_use]
    pub fn new(
        store: impl UserStore,
        hashing: HashingPool,
        verification_mail: LinkMail,
        outbox: Outbox,
    ) -> Self {
        Self {
            verification_mail: Some(verification_mail),
            outbox: Some(outbox),
            ..Self::without_mail(store, hashing)
        }
    }

    /// A service that sends no mail. Users are made [verified](Self::create_verified), or verify
    /// themselves by tokens that you deliver in your own way: see
    /// [`register_unmailed`](Self::register_unmailed) and [`reset_link`](Self::reset_link).
    #[must_use]
    pub fn without_mail(store: impl UserStore, hashing: HashingPool) -> Self {
        Self {
            clock: store.clock(),
            store: Arc::new(store),
            hashing,
            verification_mail: None,
            reset_mail: None,
            email_change_mail: None,
            notices: Notices::default(),
            outbox: None,
            policy: Arc::new(StandardPolicy),
            verification_ttl: DAY,
            reset_ttl: Duration::from_secs(30 * 60),
            email_change_ttl: DAY,
        }
    }

    /// The same, which mails this to who [forgot](Self::forgot_password) the password.
    #[must_use]
    pub fn with_reset_mail(self, mail: LinkMail) -> Self {
        Self { reset_mail: Some(mail), ..self }
    }

    /// The same, which mails this to a [new address](Self::change_email).
    #[must_use]
    pub fn with_email_change_mail(self, mail: LinkMail) -> Self {
        Self { email_change_mail: Some(mail), ..self }
    }

    /// The same, whose [notices](Notice) are written so; `None` sends nothing.
    #[must_use]
    pub fn with_notices(
        self,
        letter: impl Fn(&User, Notice) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        Self { notices: Notices::new(letter), ..self }
    }

    /// The same, whose links for forgotten passwords work for so long: 30 minutes, unless
    /// set.
    #[must_use]
    pub fn with_reset_ttl(self, ttl: Duration) -> Self {
        Self { reset_ttl: ttl, ..self }
    }

    /// The same, whose links to new addresses work for so long: 24 hours, unless set.
    #[must_use]
    pub fn with_email_change_ttl(self, ttl: Duration) -> Self {
        Self { email_change_ttl: ttl, ..self }
    }

    /// The same with other rules for passwords.
    #[must_use]
    pub fn with_policy(self, policy: impl PasswordPolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// The same by another clock than its store's.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The same, whose links that verify an address work for so long: 24 hours, unless set.
    #[must_use]
    pub fn with_verification_ttl(self, ttl: Duration) -> Self {
        Self { verification_ttl: ttl, ..self }
    }

    /// The same, on behalf of a client: whatever tells clients apart, their address, say.
    /// One client can't fill the [queue](HashingPool::for_client) for hashing.
    #[must_use]
    pub fn for_client(&self, client: &str) -> Self {
        Self { hashing: self.hashing.for_client(client), ..self.clone() }
    }

    /// The user of this identifier.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.store.find(id).await
    }

    /// The user of this address.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn find_by_email(
        &self,
        email: impl AsRef<str> + Send,
    ) -> Result<Option<User>, StoreError> {
        let Ok(email) = Email::parse(email.as_ref()) else {
            return Ok(None);
        };
        Ok(self.store.find_by_email(&email).await?.map(|(user, _)| user))
    }

    /// A page of all users, the newest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        self.store.list(page).await
    }

    /// Changes role, plan or suspension, or takes the second factor off, and answers the user as it
    /// then is. Who is suspended has no sessions, keys and links from then on, also not after coming
    /// back. Who had a second factor is told by mail that it is off.
    ///
    /// # Errors
    /// [`UpdateUserError::NotFound`]; [`UpdateUserError::LastAdmin`] where nobody else is an active
    /// admin; [`UpdateUserError::NotAllowed`] where the change is [by](UserChange::by) one who is none
    /// now; and where the store fails.
    pub async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        let suspended = change.suspended;
        let UserChanged { before, user } = self.store.change(id, change).await?;
        tracing::info!(user = %id, role = %user.role, suspended, "user changed");
        if before.second_factor && !user.second_factor {
            tracing::info!(user = %id, "second factor off");
            self.notify(&user, Notice::SecondFactorRemoved);
        }
        Ok(user)
    }

    /// Takes the use of an account away. See [`update`](Self::update).
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn suspend(&self, id: &UserId) -> Result<User, UpdateUserError> {
        self.update(id, UserChange::new().with_suspended(true)).await
    }

    /// Gives the use of an account back.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn unsuspend(&self, id: &UserId) -> Result<User, UpdateUserError> {
        self.update(id, UserChange::new().with_suspended(false)).await
    }

    /// Deletes a user, whose sessions and keys end. The address is free again.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn delete(&self, id: &UserId) -> Result<User, UpdateUserError> {
        let user = self.store.delete(id, None, &self.clock).await?;
        tracing::info!(user = %id, "user deleted");
        Ok(user)
    }

    /// The same by the user, whose password was [checked](Self::check_password) for it: whoever knew one
    /// that was reset meanwhile deletes nothing.
    ///
    /// # Errors
    /// As for [`update`](Self::update); [`UpdateUserError::Outdated`].
    pub async fn delete_checked(&self, checked: CheckedPassword) -> Result<User, UpdateUserError> {
        let user = checked.user();
        let user = self.store.delete_in_epoch(&user.id, user.epoch, &self.clock).await?;
        tracing::info!(user = %user.id, "user deleted");
        Ok(user)
    }

    /// Forgets links that have ended, at most so many, and answers how many. To be called now and
    /// then, again at once where it answers `at_most`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_expired(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.delete_expired_links(self.clock.now(), at_most).await
    }

    /// All that is wrong with a password that is to be set.
    pub(super) async fn check_policy(&self, password: &Password) -> Result<(), Vec<Violation>> {
        let violations = self.policy.ask(password).await;
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// That something was refused to who wants to be this user, for the audit.
    pub(super) fn note_refusal(&self, act: Act, user: Option<&UserId>, reason: &str) {
        let event = AuditEvent::new(act, self.clock.now()).refused(reason);
        self.store.audit_trail().note(user.into_iter().fold(event, AuditEvent::about));
    }

    /// How many users there are.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store.count().await
    }
}

/// Does work of several steps to its end, also where the caller stops waiting between them: a
/// client that hangs up must not leave an account without its mail.
pub(super) async fn carry_through<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let work = Origin::inherited(work).in_current_span();
    tokio::spawn(work).await.unwrap_or_else(|panic| Err(StoreError::internal(panic).into()))
}

/// Ends only at the next multiple of 20 ms since it began, so that the time doesn't tell what was found:
/// to read an account takes longer than to find none, and what is begun for it holds up the answer.
pub(super) async fn in_even_time<T>(work: impl Future<Output = T>) -> T {
    const STEP: Duration = Duration::from_millis(20);
    let begun = Instant::now();
    let done = work.await;
    let steps = begun.elapsed().as_micros() / STEP.as_micros() + 1;
    let end = begun + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
    sleep_until(end).await;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_a_little_more_is_answered_at_the_same_time() {
        for (works, takes) in [(0, 20), (3, 20), (19, 20), (21, 40), (99, 100)] {
            let begun = Instant::now();
            in_even_time(tokio::time::sleep(Duration::from_millis(works))).await;
            assert_eq!(begun.elapsed(), Duration::from_millis(takes), "{works}");
        }
    }
}
