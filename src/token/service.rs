//! Issue, verify, refresh, revoke.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use zeroize::Zeroizing;

use super::{
    AccessToken, FamilyId, Following, Jwks, KeySet, NewFamily, NewSession, Opening, RefreshToken,
    RenewRequest, Revocations, RevokeReason, Session, TokenError, TokenPair, TokenStore,
    claims::{Rules, Subjects},
    error::Unsigned,
    revocation::too_stale,
    token_expiry,
    verified::VerifiedTokens,
};
use crate::{
    Identity, SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent},
    clock, signals,
};

/// Issues and verifies access tokens, and refreshes and revokes the sessions behind them. Not a
/// `tower::Service`: nothing is called with requests here.
///
/// Cheap to clone; clones share what they remember. See the [module's docs](super).
///
/// ```
/// use tower_warden::{
///     Identity, Role, TokenService, UserId,
///     store::memory::MemoryStore,
///     token::{KeySet, NewSession, SessionInfo, SigningKey, TokenError},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
///
/// // Ada logs in on two devices, and ends one of the sessions from the other.
/// let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_amr(["pwd"]);
/// let phone = SessionInfo::new().with_label("phone");
/// let phone = tokens.open_session(NewSession::new(ada.clone()).with_info(phone)).await?;
/// let laptop = tokens.issue(&ada).await?;
/// assert_eq!(tokens.sessions(ada.user_id()).await?.len(), 2);
///
/// assert!(tokens.end_session(ada.user_id(), phone.session_id()).await?);
/// assert!(matches!(tokens.verify(phone.access_token()), Err(TokenError::Revoked)));
/// assert_eq!(tokens.verify(laptop.access_token())?.amr(), ["pwd"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenService {
    keys: Arc<RwLock<Arc<KeySet>>>,
    rules: Arc<Rules>,
    refresh_ttl: Duration,
    session_ttl: Option<Duration>,
    session_cap: Option<u32>,
    refresh_leeway: Duration,
    revocations: Revocations,
    stale_limit: Option<Duration>,
    store: Arc<dyn TokenStore>,
    clock: SharedClock,
    verified: Arc<VerifiedTokens>,
}

const ACCESS_TTL: Duration = Duration::from_secs(15 * 60);
const REFRESH_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SESSION_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const SESSION_CAP: u32 = 100;
const LONGEST_REFRESH_LEEWAY: Duration = Duration::from_secs(60);
const CACHE_CAPACITY: usize = 10_000;

impl TokenService {
    /// A service that signs and verifies with these keys, as this issuer (`iss`), for this audience
    /// (`aud`), and keeps refresh tokens in this store.
    ///
    /// Access tokens live 15 minutes, refresh tokens 7 days, sessions 30 days at most, and a user has
    /// 100 of them at most; 10,000 verified tokens are remembered. Time comes from the store's
    /// clock.
    #[must_use]
    pub fn new(
        keys: KeySet,
        issuer: impl Into<String>,
        audience: impl Into<String>,
        store: impl TokenStore,
    ) -> Self {
        let rules = Rules {
            issuer: issuer.into().into(),
            audiences: vec![audience.into().into()],
            lifetime: ACCESS_TTL,
            leeway: Duration::ZERO,
            subjects: Subjects::default(),
        };
        let revocations = store.revocations();
        revocations.keep_for(rules.lifetime);
        Self {
            keys: Arc::new(RwLock::new(Arc::new(keys))),
            rules: Arc::new(rules),
            refresh_ttl: REFRESH_TTL,
            session_ttl: Some(SESSION_TTL),
            session_cap: Some(SESSION_CAP),
            refresh_leeway: Duration::ZERO,
            revocations,
            stale_limit: None,
            clock: store.clock(),
            store: Arc::new(store),
            verified: Arc::new(VerifiedTokens::new(CACHE_CAPACITY)),
        }
    }

    /// The same with one more audience: tokens name all of them, and one that names any of them is
    /// taken.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.rules_mut().audiences.push(audience.into().into());
        self
    }

    /// How long an access token lives, rounded up to whole seconds; one that would live longer is
    /// invalid. At most 100 years, as for the other times.
    #[must_use]
    pub fn with_access_ttl(mut self, time_to_live: Duration) -> Self {
        let seconds = time_to_live.min(clock::LONGEST).as_millis().div_ceil(1000).max(1);
        self.rules_mut().lifetime = Duration::from_secs(seconds as u64);
        self.revocations.keep_for(self.rules.lifetime + self.rules.leeway);
        self
    }

    /// How long a refresh token lives: how long a session may be idle.
    #[must_use]
    pub fn with_refresh_ttl(mut self, time_to_live: Duration) -> Self {
        self.refresh_ttl = time_to_live.min(clock::LONGEST);
        self
    }

    /// How long a session lives from its login on, however often it is refreshed: 30 days unless
    /// set. `None`: as long as it is.
    #[must_use]
    pub fn with_session_ttl(mut self, time_to_live: Option<Duration>) -> Self {
        self.session_ttl = time_to_live.map(|ttl| ttl.min(clock::LONGEST));
        self
    }

    /// How many live sessions a user may have, 100 unless set; with one more, the one that was idle
    /// for longest ends. `None`: any number.
    #[must_use]
    pub fn with_session_cap(mut self, at_most: Option<u32>) -> Self {
        self.session_cap = at_most.map(|at_most| at_most.max(1));
        self
    }

    /// For how long after a refresh the token that was replaced, sent again, is answered with the same
    /// new refresh token, in place of ending the session: none unless set, and a minute at most. For
    /// clients that lose answers, or have two tabs.
    ///
    /// Only the immediate predecessor of the live token, and only until that is first used. It extends
    /// nothing and notes nothing. Who steals a token within its leeway stays unseen for as long;
    /// without one (RFC 9700, section 4.14.2) the second of two ends the session whatever came first.
    #[must_use]
    pub fn with_refresh_leeway(mut self, leeway: Duration) -> Self {
        self.refresh_leeway = leeway.min(LONGEST_REFRESH_LEEWAY);
        self
    }

    /// After how long without news from the [feed](super::RevocationFeed) that is followed access
    /// tokens are no longer believed, and answered with an unavailable store; `None`, unless set: they
    /// are believed until they end.
    #[must_use]
    pub fn with_stale_limit(mut self, limit: Option<Duration>) -> Self {
        self.stale_limit = limit;
        self
    }

    /// For how long after its `exp` (and before its `nbf`) an access token is still good: none
    /// unless set. For servers whose clocks differ.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        let leeway = leeway.min(clock::LONGEST);
        self.rules_mut().leeway = leeway;
        self.revocations.keep_for(self.rules.lifetime + leeway);
        self
    }

    /// Which users there can be: a genuine token whose `sub` is none of them is invalid, and none is
    /// issued. All, unless set. A store that knows its users by UUID wants [`UserId::is_uuid`].
    #[must_use]
    pub fn with_subjects(
        mut self,
        can_be: impl Fn(&UserId) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules_mut().subjects = Subjects(Arc::new(can_be));
        self
    }

    /// How many verified tokens are remembered, at most: a token of the usual kind takes about a
    /// kilobyte. With 0, each is verified each time.
    #[must_use]
    pub fn with_cache_capacity(mut self, capacity: usize) -> Self {
        self.verified = Arc::new(VerifiedTokens::new(capacity));
        self
    }

    /// Where time comes from.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self.verified = Arc::new(self.verified.empty());
        self
    }

    /// Opens a session: a first pair for a caller who has just proved who it is. The token says the
    /// caller's role, plan, further claims, and how ([`amr`](Identity::amr)) and when
    /// ([`auth_time`](Identity::auth_time); now, unless said) it proved who it is.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn issue(&self, identity: &Identity) -> Result<TokenPair, TokenError> {
        self.open_session(NewSession::new(identity.clone())).await
    }

    /// The same, with what is known of the session.
    ///
    /// # Errors
    /// [`TokenError::InvalidIdentity`], [`TokenError::Signing`], [`TokenError::Store`];
    /// [`TokenError::Overtaken`] where the user's sessions were all ended since the login began, so
    /// that a password that was reset while it was being checked opens none.
    pub async fn open_session(&self, new: NewSession) -> Result<TokenPair, TokenError> {
        let NewSession { identity, info } = new;
        let now = self.clock.now();
        let expires_at = self.session_ttl.map(|ttl| now + ttl);
        let mut pair = self.sign_pair(&identity, FamilyId::random(), expires_at, now)??;
        let family = NewFamily {
            id: pair.session.clone(),
            user_id: identity.user_id().clone(),
            token: pair.refresh_token.hash(),
            created_at: now,
            token_expires_at: pair.refresh_expires_at,
            expires_at,
            amr: identity.amr().to_vec(),
            info,
            epoch: identity.epoch(),
            at_most: self.session_cap,
        };
        match self.store.open_family(family).await? {
            Opening::Outdated => Err(TokenError::Overtaken),
            Opening::Opened { not_before } => {
                let issued_at = after_mark(now, not_before);
                if issued_at != now {
                    pair.access_token = self.sign(&identity, &pair.session, issued_at)?;
                }
                Ok(pair)
            }
        }
    }

    /// Who presents this access token. Asks no store: that it was revoked is known in this process
    /// ([`Revocations`]).
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a genuine token past its time, or that says another role than its
    /// user has now; [`TokenError::Revoked`]; [`TokenError::Store`] past the
    /// [limit](Self::with_stale_limit); [`TokenError::Invalid`] for anything else.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_bytes(token.as_bytes())
    }

    /// The same of a header's value, which is looked at as text only where it has not been seen.
    pub(crate) fn verify_bytes(&self, token: &[u8]) -> Result<Identity, TokenError> {
        let now = self.clock.now();
        let age = self.verified.age();
        let remembered = self.verified.get(token);
        let from_memory = remembered.is_some();
        let outcome = match remembered {
            Some(identity) => self.rules.refuse_expired(&identity, now).map(|()| identity),
            None => match std::str::from_utf8(token) {
                Ok(token) => self.rules.verify(token, &self.keys(), now),
                Err(_) => Err(TokenError::Invalid("not text")),
            },
        };
        if let (Ok(identity), false) = (&outcome, from_memory) {
            self.verified.insert(age, token, identity.clone());
        }
        let outcome =
            outcome.and_then(|identity| self.refuse_revoked(&identity).map(|()| identity));
        signals::token_verified(match &outcome {
            Ok(_) if from_memory => "remembered",
            Ok(_) => "verified",
            Err(TokenError::Expired) => "expired",
            Err(TokenError::Revoked) => "revoked",
            Err(_) => "invalid",
        });
        outcome
    }

    /// After the memory of verified tokens, which knows nothing of it.
    fn refuse_revoked(&self, identity: &Identity) -> Result<(), TokenError> {
        self.revocations.check(identity)?;
        match (self.stale_limit, self.revocations.staleness()) {
            (Some(limit), Some(stale)) if stale > limit => Err(too_stale()),
            _ => Ok(()),
        }
    }

    /// The live sessions of a user, the last used first.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn sessions(&self, user: &UserId) -> Result<Vec<Session>, StoreError> {
        self.store.sessions(user, self.clock.now()).await
    }

    /// Ends a session by its identifier (`sid`), if it is the user's. Answers whether it was, and
    /// was live.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn end_session(&self, user: &UserId, session: &str) -> Result<bool, StoreError> {
        self.store.end_session(user, &FamilyId::from(session.to_owned()), &self.clock).await
    }

    /// Ends all sessions of a user but this one, and answers how many.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn end_other_sessions(
        &self,
        user: &UserId,
        session: &str,
    ) -> Result<u64, StoreError> {
        let keep = FamilyId::from(session.to_owned());
        let reason = RevokeReason::LogoutAll;
        self.store.revoke_user(user, Some(&keep), reason, &self.clock).await
    }

    /// A new pair for a session (`sid`) of a caller whose access token named it: its refresh token is
    /// replaced, whichever client has it. For after a change of password, which ended the others.
    ///
    /// # Errors
    /// [`TokenError::Revoked`] where the session has ended; the others as for [`issue`](Self::issue).
    pub async fn renew(&self, session: &str, identity: &Identity) -> Result<TokenPair, TokenError> {
        let id = FamilyId::from(session.to_owned());
        let mut pair = self.sign_pair(identity, id.clone(), None, self.clock.now())??;
        let user = identity.user_id().clone();
        let successor = pair.refresh_token.hash();
        let request = RenewRequest::new(id, user, successor, self.refresh_ttl, self.clock.clone());
        let renewed = self.store.renew(request).await?.ok_or(TokenError::Revoked)?;
        pair.refresh_expires_at = renewed.token_expires_at;
        Ok(pair)
    }

    /// Ends the session of a refresh token, whichever of its generations is presented. One that is
    /// unknown has none, which is as good.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn logout(&self, presented: &str) -> Result<(), StoreError> {
        if let Some(presented) = hash_of(presented) {
            self.store.revoke_family(&presented, RevokeReason::Logout, &self.clock).await?;
        }
        Ok(())
    }

    /// Ends all sessions of a user, and answers how many.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn logout_all(&self, user: &UserId) -> Result<u64, StoreError> {
        self.store.revoke_user(user, None, RevokeReason::LogoutAll, &self.clock).await
    }

    /// Forgets sessions that ended before any access token that is still good, and revocations that no
    /// longer matter. At most so many tokens in one call; answers how many. To be called now and then,
    /// again at once where it answers `at_most`: a thousand take some milliseconds, for which others
    /// don't wait.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn delete_expired(&self, at_most: u32) -> Result<u64, StoreError> {
        // What has ended may have to be revoked as long as an access token of it may be good.
        let since = self.revocations.in_force_since(self.clock.now());
        self.store.delete_revocations(since).await?;
        self.store.delete_expired_sessions(since, at_most).await
    }

    /// Follows what other processes revoke in the store, until what it answers is dropped; nothing,
    /// where the store is not shared. To be called before the first request is served: what is in
    /// force already is known when it comes back.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    pub async fn follow_revocations(&self) -> Result<Following, StoreError> {
        self.store.follow_revocations().await
    }

    /// What is known in this process to be revoked: the store's.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The public keys, for others to verify access tokens with.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        self.keys().jwks()
    }

    /// Puts other keys in the place of these, while the service runs, for all its clones. What was
    /// verified is verified anew: tokens of a key that is gone are invalid from now on.
    ///
    /// To change the key that signs without a 401, let all servers know the new one to verify with
    /// first; then let it sign, and the old one verify until its last token has ended.
    ///
    /// ```
    /// # use tower_warden::{Identity, Role, TokenService, UserId, store::memory::MemoryStore};
    /// use tower_warden::token::{KeySet, SigningKey};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let old = SigningKey::generate_ed25519()?;
    /// let verifies = old.verifying_key().clone();
    /// let tokens = TokenService::new(KeySet::new(old), "https://id.example", "api", MemoryStore::new());
    /// let pair = tokens.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await?;
    ///
    /// let new = SigningKey::generate_ed25519()?;
    /// tokens.set_keys(KeySet::new(new).with_verifying_key(verifies));
    /// assert!(tokens.verify(pair.access_token()).is_ok());
    /// assert_eq!(tokens.jwks().keys().len(), 2);
    ///
    /// tokens.set_keys(KeySet::new(SigningKey::generate_ed25519()?));
    /// assert!(tokens.verify(pair.access_token()).is_err());
    /// # Ok(()) }
    /// ```
    pub fn set_keys(&self, keys: KeySet) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.verified.forget();
        let event = AuditEvent::new(Act::SIGNING_KEYS_CHANGED, self.clock.now());
        self.store.audit_trail().note(event);
    }

    /// An access token alone, of no session: for a machine, or for one call of a service to another.
    /// Nothing is stored; it can't be refreshed, and ends at its `exp`, or when all that its user has is
    /// revoked.
    ///
    /// # Errors
    /// [`TokenError::InvalidIdentity`], [`TokenError::Signing`].
    pub fn issue_access(&self, identity: &Identity) -> Result<AccessToken, TokenError> {
        // Every token of ours names a session; of this one there is no other token.
        let token = self.sign(identity, &FamilyId::random(), self.clock.now())?;
        Ok(AccessToken { token, expires_in: self.rules.lifetime })
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was verified by other rules is forgotten: a clone that is stricter verifies for itself.
    fn rules_mut(&mut self) -> &mut Rules {
        self.verified = Arc::new(self.verified.empty());
        Arc::make_mut(&mut self.rules)
    }

    fn sign_pair(
        &self,
        identity: &Identity,
        session: FamilyId,
        session_ends: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Result<TokenPair, Unsigned>, StoreError> {
        let refresh_token = RefreshToken::random()?;
        let access_token = self.sign(identity, &session, now);
        Ok(access_token.map(|access_token| TokenPair {
            access_token,
            expires_in: self.rules.lifetime,
            refresh_token,
            refresh_expires_at: token_expiry(now, self.refresh_ttl, session_ends),
            session,
        }))
    }
}

impl TokenService {
    fn sign(
        &self,
        identity: &Identity,
        session: &FamilyId,
        issued_at: SystemTime,
    ) -> Result<Zeroizing<String>, Unsigned> {
        self.rules.sign(identity, session.as_str(), self.keys().signing_key(), issued_at)
    }
}

/// After everything that was issued to a user was revoked up to a second, what is issued next says a
/// later one.
fn after_mark(now: SystemTime, not_before: Option<SystemTime>) -> SystemTime {
    not_before.map_or(now, |mark| now.max(mark + Duration::from_secs(1)))
}

fn hash_of(presented: &str) -> Option<TokenHash> {
    RefreshToken::parse(presented).map(|token| token.hash())
}

mod refresh;
#[cfg(test)]
mod tests;
