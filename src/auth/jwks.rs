//! [`JwksAuthenticator`]: tokens of an issuer whose keys are fetched from it.

mod fetch;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::Uri;
use zeroize::Zeroizing;

use self::fetch::{Client, Document, checked, named_by};
use super::{AuthError, Authenticate, bearer};
use crate::{
    Answer, Identity, RequestHead, StoreError,
    token::{ForeignKeys, Jwks, TokenError, TokenVerifier, UNKNOWN_KEY},
};

/// Knows callers by the access tokens of another issuer, and fetches the issuer's keys: from the
/// `jwks_uri` that the issuer's own document names (OpenID Connect Discovery, RFC 8414), or from where
/// you say. What a token must be is a matter of its [`TokenVerifier`].
///
/// 1. Keys are fetched when the first token comes (or before: [`refresh`](Self::refresh)), and anew in
///    the background before they are old: after what `Cache-Control` allows, within a minute and a day.
/// 2. A token of a key that isn't known triggers a fetch, but not more than once a minute (once a second
///    while there are no keys at all), however many such tokens come. Many requests share one fetch,
///    and a failure of it.
/// 3. While the issuer does not answer, or answers with what can't be used, the last good keys stay.
///    Tokens that can't be checked at the moment are 503, never 401.
/// 4. Only `https` is fetched from (and loopback addresses); a redirect is not followed; 512 KiB are
///    read at most, for 5 seconds. The issuer's document must name the issuer itself, and no address of
///    a private network for its keys, unless it is from there. That is looked at in addresses that are
///    written out (and `localhost`): where a host's name leads is your resolver's and firewall's business.
///
/// ```no_run
/// use tower_warden::{
///     RequireAuth, Role,
///     auth::JwksAuthenticator,
///     token::{Algorithm, ClaimMapping, TokenVerifier},
/// };
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let keycloak = TokenVerifier::new("https://id.example/realms/shop", "shop-api")
///     .with_algorithms([Algorithm::Rs256])
///     .with_mapping(ClaimMapping::new().with_roles_at(
///         ["realm_access", "roles"],
///         [("shop-admin", Role::ADMIN), ("shop-editor", Role::EDITOR)],
///     ));
/// let tokens = JwksAuthenticator::discover(keycloak)?;
/// // At the start, so that what is wrong is found there; it may be left out.
/// tokens.refresh().await?;
/// let auth = RequireAuth::new(tokens);
/// # Ok(()) }
/// ```
///
/// Its futures run on tokio.
#[derive(Clone)]
pub struct JwksAuthenticator {
    inner: Arc<Inner>,
}

struct Inner {
    verifier: TokenVerifier,
    source: Source,
    client: Client,
    state: Mutex<State>,
    flight: tokio::sync::Mutex<()>,
}

enum Source {
    /// The issuer's documents, in the order in which they are looked for.
    Discovery(Vec<Uri>),
    Jwks(Uri),
}

#[derive(Default)]
struct State {
    /// The last good set, and until when it is fresh.
    known: Option<(Jwks, SystemTime)>,
    /// When the last try ended, and how.
    tried_at: Option<SystemTime>,
    failed: bool,
    /// How many have ended: who waited for a try that another made needs none.
    tries: u64,
    refreshing: bool,
}

/// Why the keys of an issuer are not to be had.
///
/// ```
/// use tower_warden::{auth::{JwksAuthenticator, JwksError}, token::TokenVerifier};
/// let plain = TokenVerifier::new("http://id.example", "api");
/// let refused = JwksAuthenticator::discover(plain);
/// assert!(matches!(refused, Err(JwksError::InvalidUrl(url)) if url == "http://id.example"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Neither `https` nor a loopback address.
    #[error("{0} is no https address")]
    InvalidUrl(String),
    /// TLS can't be used: the system has no certificates, say.
    #[error("TLS can't be used")]
    Tls(#[source] std::io::Error),
    /// The issuer did not answer, or not in time.
    #[error("{url} does not answer")]
    Unreachable {
        /// What was asked for.
        url: Uri,
        /// Why there is no answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The issuer answered with something else than what was asked for.
    #[error("{url} answers {what}")]
    Unusable {
        /// What was asked for.
        url: Uri,
        /// What is wrong with the answer.
        what: &'static str,
    },
}

const SHORTEST_AGE: Duration = Duration::from_secs(60);
const USUAL_AGE: Duration = Duration::from_secs(60 * 60);
const LONGEST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// From the end of a try to the next one that isn't asked for by [`JwksAuthenticator::refresh`].
const BETWEEN_TRIES: Duration = Duration::from_secs(60);
/// The same while there are no keys at all.
const BETWEEN_FIRST_TRIES: Duration = Duration::from_secs(1);

impl JwksAuthenticator {
    /// With the keys that the issuer of this verifier publishes, by its document at
    /// `/.well-known/openid-configuration`, or at `/.well-known/oauth-authorization-server`.
    ///
    /// # Errors
    /// [`JwksError::InvalidUrl`] for an issuer that is no `https` address, [`JwksError::Tls`].
    pub fn discover(verifier: TokenVerifier) -> Result<Self, JwksError> {
        let issuer = checked(verifier.issuer()).ok().filter(|_| !verifier.issuer().contains('{'));
        let issuer = issuer.ok_or_else(|| JwksError::InvalidUrl(verifier.issuer().to_owned()))?;
        let base = verifier.issuer().trim_end_matches('/');
        let (origin, path) = base.split_at(base.len() - issuer.path().trim_end_matches('/').len());
        let openid = checked(&format!("{base}/.well-known/openid-configuration"))?;
        let oauth = checked(&format!("{origin}/.well-known/oauth-authorization-server{path}"))?;
        Self::new(verifier, Source::Discovery(vec![openid, oauth]))
    }

    /// The same with the issuer's document at this address: for an issuer whose name is no address.
    /// The tenants of Entra share the document at
    /// `https://login.microsoftonline.com/organizations/v2.0/.well-known/openid-configuration`, which
    /// names the pattern that their names are made by.
    ///
    /// # Errors
    /// [`JwksError::InvalidUrl`] where it is no `https` address, [`JwksError::Tls`].
    pub fn discover_at(document: &str, verifier: TokenVerifier) -> Result<Self, JwksError> {
        let document = checked(document)?;
        Self::new(verifier, Source::Discovery(vec![document]))
    }

    /// With the keys at this address.
    ///
    /// # Errors
    /// [`JwksError::InvalidUrl`] where it is no `https` address, [`JwksError::Tls`].
    pub fn at(jwks: &str, verifier: TokenVerifier) -> Result<Self, JwksError> {
        let jwks = checked(jwks)?;
        Self::new(verifier, Source::Jwks(jwks))
    }

    fn new(verifier: TokenVerifier, source: Source) -> Result<Self, JwksError> {
        let (state, flight) = (Mutex::default(), tokio::sync::Mutex::default());
        let client = Client::new().map_err(JwksError::Tls)?;
        Ok(Self { inner: Arc::new(Inner { verifier, source, client, state, flight }) })
    }

    /// Fetches the keys now.
    ///
    /// # Errors
    /// [`JwksError`]; the keys that were known before stay.
    pub async fn refresh(&self) -> Result<(), JwksError> {
        let tries = self.inner.state().tries;
        self.inner.refresh(tries).await
    }

    /// Who presents this token.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a genuine token past its time; [`TokenError::Store`] where its key
    /// can't be had at the moment; [`TokenError::Invalid`] for anything else.
    pub fn verify(&self, token: &str) -> Answer<Result<Identity, TokenError>> {
        self.verify_bytes(token.as_bytes())
    }

    fn verify_bytes(&self, token: &[u8]) -> Answer<Result<Identity, TokenError>> {
        let outcome = self.inner.verifier.verify_bytes(token);
        if !matches!(outcome, Err(TokenError::Invalid(UNKNOWN_KEY))) {
            self.refresh_ahead();
            return Answer::Ready(outcome);
        }
        let tries = match self.inner.may_try() {
            Ok(tries) => tries,
            // Once more: the key may have come between the two looks.
            Err(last) => {
                return Answer::Ready(last.and_then(|()| self.inner.verifier.verify_bytes(token)));
            }
        };
        let (inner, token) = (Arc::clone(&self.inner), Zeroizing::new(token.to_vec()));
        // In a task of its own: it must be carried through though the client hangs up.
        let fetching = tokio::spawn(async move {
            inner.fetch_once(tries).await?;
            inner.verifier.verify_bytes(&token)
        });
        Answer::pending(async { fetching.await.unwrap_or_else(|ended| Err(unavailable(ended))) })
    }

    /// Fetches keys in the background that will be old soon.
    fn refresh_ahead(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(tries) = self.inner.is_due() else { return };
        let inner = Arc::clone(&self.inner);
        runtime.spawn(async move {
            if let Err(error) = inner.fetch_once(tries).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "an issuer's keys can't be fetched; the last ones stay");
            }
            inner.state().refreshing = false;
        });
    }
}

impl Authenticate for JwksAuthenticator {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        match bearer(request.headers).map(|token| self.verify_bytes(token)) {
            Ok(Answer::Ready(outcome)) => Answer::Ready(outcome.map_err(AuthError::from)),
            Ok(Answer::Pending(outcome)) => Answer::pending(async { Ok(outcome.await?) }),
            Err(error) => Answer::Ready(Err(error)),
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the sake of an unknown key: how many tries have ended, or how the last one did, where
    /// another would be too soon.
    fn may_try(&self) -> Result<u64, Result<(), TokenError>> {
        let (state, now) = (self.state(), self.verifier.clock().now());
        // One that is under way is waited for.
        match state.rests(now) && self.flight.try_lock().is_ok() {
            true => Err(state.last()),
            false => Ok(state.tries),
        }
    }

    /// Whether keys are to be fetched in the background, which is then noted to be under way.
    fn is_due(&self) -> Option<u64> {
        let (mut state, now) = (self.state(), self.verifier.clock().now());
        let fresh_until = state.known.as_ref()?.1;
        if state.refreshing || state.rests(now) || now < fresh_until {
            return None;
        }
        state.refreshing = true;
        Some(state.tries)
    }

    /// One fetch for all who found that this many tries had ended, be its outcome good or bad.
    async fn fetch_once(&self, tries: u64) -> Result<(), TokenError> {
        let _flight = self.flight.lock().await;
        {
            let (state, now) = (self.state(), self.verifier.clock().now());
            if state.tries > tries || state.rests(now) {
                return state.last();
            }
        }
        self.fetch_now().await.map_err(unavailable)
    }

    /// The same for a program that asks for it: only a good outcome of another is its own.
    async fn refresh(&self, tries: u64) -> Result<(), JwksError> {
        let _flight = self.flight.lock().await;
        {
            let state = self.state();
            if state.tries > tries && !state.failed {
                return Ok(());
            }
        }
        self.fetch_now().await
    }

    /// To be called by who holds the flight.
    async fn fetch_now(&self) -> Result<(), JwksError> {
        let fetched = self.fetch().await;
        let mut state = self.state();
        state.tries += 1;
        state.tried_at = Some(self.verifier.clock().now());
        state.failed = fetched.is_err();
        let (jwks, age) = fetched?;
        let age = age.unwrap_or(USUAL_AGE).clamp(SHORTEST_AGE, LONGEST_AGE);
        let changed = state.known.as_ref().is_none_or(|(known, _)| *known != jwks);
        if changed {
            self.verifier.set_keys(ForeignKeys::read(&jwks));
        }
        // A fifth of their time is left to those who fetch them anew.
        state.known = Some((jwks, self.verifier.clock().now() + age * 4 / 5));
        Ok(())
    }

    async fn fetch(&self) -> Result<(Jwks, Option<Duration>), JwksError> {
        let uri = match &self.source {
            Source::Jwks(uri) => uri.clone(),
            Source::Discovery(documents) => {
                let (url, document) = self.document(documents).await?;
                if document.issuer != self.verifier.issuer() {
                    let what = "with the document of another issuer";
                    return Err(JwksError::Unusable { url: url.clone(), what });
                }
                named_by(url, &document.jwks_uri)?
            }
        };
        let (jwks, age) = self.client.get::<Jwks>(&uri).await?;
        match ForeignKeys::read(&jwks).is_empty() {
            true => Err(JwksError::Unusable { url: uri, what: "with no key that can be used" }),
            false => Ok((jwks, age)),
        }
    }
}

impl Inner {
    /// The first of these that is there.
    async fn document<'a>(&self, documents: &'a [Uri]) -> Result<(&'a Uri, Document), JwksError> {
        let (last, others) = documents.split_last().ok_or(JwksError::InvalidUrl(String::new()))?;
        for url in others {
            match self.client.get::<Document>(url).await {
                Err(JwksError::Unusable { what: fetch::NOT_FOUND, .. }) => {}
                found => return Ok((url, found?.0)),
            }
        }
        Ok((last, self.client.get::<Document>(last).await?.0))
    }
}

impl State {
    /// Whether another try would be too soon after the last.
    fn rests(&self, now: SystemTime) -> bool {
        let between = match self.known {
            Some(_) => BETWEEN_TRIES,
            None => BETWEEN_FIRST_TRIES,
        };
        self.tried_at.is_some_and(|at| now.duration_since(at).unwrap_or_default() < between)
    }

    /// How the last try ended.
    fn last(&self) -> Result<(), TokenError> {
        match self.failed {
            true => Err(unavailable("the issuer's keys can't be fetched")),
            false => Ok(()),
        }
    }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TokenError {
    TokenError::Store(StoreError::unavailable(error))
}

impl fmt::Debug for JwksAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksAuthenticator")
            .field("verifier", &self.inner.verifier)
            .finish_non_exhaustive()
    }
}
