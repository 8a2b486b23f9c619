//! Make, list, revoke, recognize.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use super::{
    ApiKey, ApiKeyError, ApiKeyId, ApiKeySecret, ApiKeyStore, CreateKeyError, FoundKey,
    KeyObjection, KeyRequest, KeyUse, NewApiKey, form,
    seen::{Recalled, Seen, SeenKeys, Standing},
};
use crate::{
    Answer, ClientIp, Identity, Origin, Role, SharedClock, StoreError, TokenHash, UserId, signals,
    turns::{Client, Lane, Late, Turns},
};

/// Makes, lists, revokes and recognizes API keys. Not a `tower::Service`: nothing is called with
/// requests here.
///
/// Cheap to clone; clones share what they remember. See the [module's docs](super).
///
/// Anybody can make a key whose form is right, and whoever sends many makes the look-ups of keys that
/// were not seen before wait, and fail as unavailable. Put an [`ObserveLayer`](crate::ObserveLayer) outside,
/// which says from which address a request comes: then clients take turns. And put a
/// [`Rule::per_ip`](crate::Rule::per_ip) outside, so that one address sends no great number of them.
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_warden::{ApiKeyService, Identity, RequireAuth, Role, api_key::KeyRequest};
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = Identity::from(&store.create(ada.with_role(Role::EDITOR)).await?);
/// let keys = ApiKeyService::new(store).with_prefix("acme_").with_cap(5);
/// let (_, secret) = keys.create(&ada, KeyRequest::new("backup").with_role(Role::VIEWER)).await?;
///
/// // A key is a Bearer token to the layer.
/// let service = RequireAuth::new(keys)
///     .layer(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
/// for (key, status) in [(secret.expose(), 200), ("acme_made-up", 401)] {
///     let request = Request::get("/").header("authorization", format!("Bearer {key}")).body(())?;
///     assert_eq!(service.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ApiKeyService {
    store: Arc<dyn ApiKeyStore>,
    prefix: Arc<str>,
    /// From the least to the most.
    ranks: Arc<[Role]>,
    at_most: u32,
    clock: SharedClock,
    seen: Arc<SeenKeys>,
    /// To ask the store about a key that was never seen.
    pub(super) turns: Arc<Turns>,
}

const PREFIX: &str = "wdn_";
const AT_MOST: u32 = 100;
const CACHE_CAPACITY: usize = 10_000;

/// A little less than a minute, so that the time that is shown is never older than that.
const NOTED_EVERY: Duration = Duration::from_secs(58);

/// How long a request waits for a store that it could do without.
const PATIENCE: Duration = Duration::from_millis(150);

/// So many keys that were never seen are looked up at once. Anybody can make one whose form is right,
/// and whoever sends many should not keep the store's connections from everybody else.
const LOOK_UPS: usize = 4;
/// So many wait for their turn, a quarter of them for one client,
const WAITING: usize = 1024;
/// and each for so long.
const TURN: Duration = Duration::from_secs(3);

/// How long a revoked key is told from one that never was.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

impl ApiKeyService {
    /// A service that keeps keys in this store. They begin with `wdn_`; a user has 100 at most; the
    /// roles are viewer, editor and admin, in this order; 10,000 keys are remembered.
    #[must_use]
    pub fn new(store: impl ApiKeyStore) -> Self {
        Self {
            clock: store.clock(),
            store: Arc::new(store),
            prefix: PREFIX.into(),
            ranks: [Role::VIEWER, Role::EDITOR, Role::ADMIN].into(),
            at_most: AT_MOST,
            seen: Arc::new(SeenKeys::new(CACHE_CAPACITY)),
            turns: Turns::new(LOOK_UPS, WAITING),
        }
    }

    /// How keys begin. A word of your own tells scanners for leaked secrets whose they are.
    ///
    /// # Panics
    /// Where it is not made of 1 to 20 letters, digits and `_`.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        assert!(
            (1..=20).contains(&prefix.len()) && prefix.bytes().all(plain),
            "{prefix:?}: a key's prefix is made of 1 to 20 letters, digits and _"
        );
        Self { prefix: prefix.into(), ..self }
    }

    /// Your roles, from the least to the most. Roles have no order but this one: a key of a role that
    /// is not among them acts only while its owner has the same.
    #[must_use]
    pub fn with_roles(self, ranks: impl IntoIterator<Item = Role>) -> Self {
        Self { ranks: ranks.into_iter().collect(), ..self }
    }

    /// How many keys a user may have.
    #[must_use]
    pub fn with_cap(self, at_most: u32) -> Self {
        Self { at_most, ..self }
    }

    /// How many keys are remembered, at most: each takes about half a kilobyte. With 0, the store is
    /// asked each time.
    #[must_use]
    pub fn with_cache_capacity(self, capacity: usize) -> Self {
        Self { seen: Arc::new(SeenKeys::new(capacity)), ..self }
    }

    /// Where time comes from, if not from the store's clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// Makes a key for a user who has just been authenticated, and not by a key. What answers is for
    /// the user to see this once.
    ///
    /// # Errors
    /// See [`CreateKeyError`].
    pub async fn create(
        &self,
        owner: &Identity,
        request: KeyRequest,
    ) -> Result<(ApiKey, ApiKeySecret), CreateKeyError> {
        let now = self.clock.now();
        let objections = self.objections(owner, request.role.as_ref(), request.expires_at);
        let role = request.role.unwrap_or_else(|| owner.role().clone());
        if !objections.is_empty() {
            return Err(CreateKeyError::Unfit(objections));
        }
        let secret = ApiKeySecret::random(&self.prefix)?;
        let key = ApiKey {
            id: ApiKeyId::random(),
            owner: owner.user_id().clone(),
            name: request.name,
            prefix: secret.prefix().to_owned(),
            role,
            created_at: now,
            expires_at: request.expires_at,
            last_used_at: None,
        };
        self.store.create_key(NewApiKey::new(key.clone(), secret.hash()), self.at_most).await?;
        tracing::info!(key = %key.id, user = %key.owner, "API key made");
        Ok((key, secret))
    }

    /// What [`create`](Self::create) would say against a key of this role and with this end: for those
    /// who say it together with what they find wrong themselves.
    #[must_use]
    pub fn objections(
        &self,
        owner: &Identity,
        role: Option<&Role>,
        expires_at: Option<SystemTime>,
    ) -> Vec<KeyObjection> {
        let too_high = role.is_some_and(|role| self.lesser(role, owner.role()) != Some(role));
        let expired = expires_at.is_some_and(|end| end <= self.clock.now());
        [(too_high, KeyObjection::RoleTooHigh), (expired, KeyObjection::AlreadyExpired)]
            .into_iter()
            .filter_map(|(wrong, objection)| wrong.then_some(objection))
            .collect()
    }

    /// The keys of a user, the newest first: those past their time too, but not those revoked.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn list(&self, owner: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.store.list_keys(owner).await
    }

    /// Revokes a key of this user; answers whether the user had it. It is refused from now on here, and
    /// within a second everywhere.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn revoke(&self, owner: &UserId, id: &ApiKeyId) -> Result<bool, StoreError> {
        let revoked = self.store.revoke_key(owner, id, self.clock.now()).await?;
        if let Some(hash) = revoked {
            self.seen.revoke(hash, owner.clone(), self.clock.monotonic());
            tracing::info!(key = %id, user = %owner, "API key revoked");
        }
        Ok(revoked.is_some())
    }

    /// Revokes all keys of this user, and answers how many.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn revoke_all(&self, owner: &UserId) -> Result<u64, StoreError> {
        let revoked = self.store.revoke_all_keys(owner, self.clock.now()).await?;
        self.forget(owner);
        Ok(revoked)
    }

    /// Something of this user has changed: role or plan, or the user was suspended or deleted. What is
    /// remembered of the user's keys counts no more, so that the change counts at once on this server.
    pub fn forget(&self, owner: &UserId) {
        self.seen.forget_owner(owner);
    }

    /// Who presents this key.
    ///
    /// # Errors
    /// See [`ApiKeyError`].
    pub async fn verify(&self, key: &str) -> Result<Identity, ApiKeyError> {
        self.verify_bytes(key.as_bytes()).await
    }

    /// Whether a text begins as the keys do: whose business it is.
    #[must_use]
    pub fn is_key(&self, presented: &[u8]) -> bool {
        presented.starts_with(self.prefix.as_bytes())
    }

    /// Forgets keys that were revoked three months ago, at most so many, and answers how many. Until
    /// then their holders are told that they are revoked; from then on that they are none. To be
    /// called now and then, again at once where it answers `at_most`.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn delete_revoked(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.delete_revoked_keys(self.clock.now() - REMEMBERED, at_most).await
    }

    /// The same of a header's value. There at once for a key that was seen just before.
    pub(crate) fn verify_bytes(&self, presented: &[u8]) -> Answer<Result<Identity, ApiKeyError>> {
        let hash = match form::hash_of(presented, &self.prefix) {
            Ok(hash) => hash,
            // What another authenticator may know is not counted here.
            Err(reason) if !self.is_key(presented) => {
                return Answer::Ready(Err(ApiKeyError::Invalid(reason)));
            }
            Err(reason) => return Answer::Ready(told(Err(ApiKeyError::Invalid(reason)))),
        };
        match self.seen.recall(&hash, self.clock.monotonic()) {
            Recalled::Known(seen) => Answer::Ready(told(self.judge(&seen.standing))),
            Recalled::Old(seen) => Answer::pending(self.clone().ask(hash, Some(seen))),
            Recalled::Nothing => Answer::pending(self.clone().ask(hash, None)),
        }
    }

    /// Asks the store; what was known before counts if it can't be asked.
    async fn ask(self, key: TokenHash, before: Option<Arc<Seen>>) -> Result<Identity, ApiKeyError> {
        let turn = match before {
            Some(_) => None,
            None => match self.turns.take(Lane::Check, client(), TURN).await {
                Ok(turn) => Some(turn),
                Err(late) => return told(Err(late.into())),
            },
        };
        // Of many who come at once with one key, the first has found it for all.
        if turn.is_some()
            && let Recalled::Known(seen) = self.seen.recall(&key, self.clock.monotonic())
        {
            return told(self.judge(&seen.standing));
        }
        let asked = self.seen.moment(self.clock.monotonic());
        let answer = self.store.find_key(KeyUse::new(key, self.clock.now(), NOTED_EVERY));
        let answer = match before {
            Some(_) => timeout(PATIENCE, answer)
                .await
                .unwrap_or_else(|late| Err(StoreError::unavailable(late))),
            None => answer.await,
        };
        drop(turn);
        told(match (answer, before) {
            (Ok(Some(found)), _) => {
                let standing = self.standing(&found);
                self.seen.note(key, found.key.owner, standing.clone(), asked);
                self.judge(&standing)
            }
            (Ok(None), _) => {
                self.seen.forget(&key);
                Err(ApiKeyError::Invalid("unknown"))
            }
            (Err(error), Some(before)) => {
                self.seen.store_is_away(self.clock.monotonic());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "API keys are believed for a minute");
                self.judge(&before.standing)
            }
            (Err(error), None) => Err(error.into()),
        })
    }

    fn standing(&self, found: &FoundKey) -> Standing {
        let Some(owner) = found.owner.as_ref().filter(|_| !found.revoked) else {
            return Standing::Revoked;
        };
        let Some(role) = self.lesser(&found.key.role, owner.role()) else {
            return Standing::NoRole;
        };
        let mut caller = Identity::new(found.key.owner.clone(), role.clone())
            .with_issued_at(found.key.created_at);
        if let Some(plan) = owner.plan() {
            caller = caller.with_plan(plan.clone());
        }
        if let Some(end) = found.key.expires_at {
            caller = caller.with_expires_at(end);
        }
        Standing::Good(found.key.id.mark(caller))
    }

    /// The one thing that time changes about a key is whether it is expired.
    fn judge(&self, standing: &Standing) -> Result<Identity, ApiKeyError> {
        match standing {
            Standing::Revoked => Err(ApiKeyError::Revoked),
            Standing::NoRole => Err(ApiKeyError::Invalid("role")),
            Standing::Good(caller) => {
                let ended = caller.expires_at().is_some_and(|end| self.clock.now() >= end);
                if ended { Err(ApiKeyError::Expired) } else { Ok(caller.clone()) }
            }
        }
    }

    /// The lesser of two roles, if they are ranked, or the same.
    fn lesser<'a>(&self, a: &'a Role, b: &'a Role) -> Option<&'a Role> {
        let rank = |role| self.ranks.iter().position(|rank| rank == role);
        if a == b {
            return Some(a);
        }
        Some(if rank(a)? < rank(b)? { a } else { b })
    }
}

impl From<Late> for ApiKeyError {
    fn from(_: Late) -> Self {
        StoreError::unavailable("too many keys wait that were not seen before").into()
    }
}

/// Who presents a key, as far as the [`Origin`] says so, and as limits count clients.
fn client() -> Option<Client> {
    let ip = Origin::current()?.ip()?;
    Some(ClientIp::from(ip).to_string().into())
}

/// Counts what came of a key.
fn told(outcome: Result<Identity, ApiKeyError>) -> Result<Identity, ApiKeyError> {
    signals::api_key_verified(match &outcome {
        Ok(_) => "ok",
        Err(ApiKeyError::Expired) => "expired",
        Err(ApiKeyError::Revoked) => "revoked",
        Err(ApiKeyError::Invalid(_)) => "invalid",
        Err(ApiKeyError::Store(_)) => "failed",
    });
    outcome
}

#[cfg(test)]
mod tests;
