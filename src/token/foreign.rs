//! Tokens of other issuers: what they must be to count, and what their claims say of a caller.

mod keys;
mod mapping;
mod tenants;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use super::{
    Algorithm, Jwks, TokenError, VerifyingKey,
    claims::{CLOCK_SKEW, Parts, instant, take_seconds},
    verified::VerifiedTokens,
};
use crate::{Identity, SharedClock, SystemClock, json::Members};

use tenants::Tenants;

pub(crate) use keys::ForeignKeys;
#[cfg(feature = "jwks")]
pub(crate) use keys::UNKNOWN_KEY;
pub use mapping::ClaimMapping;
pub(super) use mapping::text_of;

/// Verifies access tokens that somebody else issued, with the issuer's public keys: for a gateway or
/// a service that has no keys of its own to sign with.
///
/// As strict as [`TokenService`](super::TokenService) is with its own, but for what issuers do
/// differently, which is said here:
///
/// 1. Exactly three canonical base64url parts, 16 KiB at most; no member twice. Headers that bring a
///    key (`jwk`, `jku`, `x5c`, `x5u`) or change the rules (`crit`, `b64`) are refused.
/// 2. `alg` is one of those [allowed](Self::with_algorithms), and one that the key is for. `kid` picks
///    the key; a token without one is verified where the issuer has a single key.
/// 3. `typ` is one of [these](Self::with_types), or missing: `at+jwt` and `JWT`, unless set.
/// 4. `iss` is the issuer's name to the letter. `aud` names us.
/// 5. `exp` is there, and not past; `iat` and `nbf`, where they are there, are not in the future; where
///    both `iat` and `exp` are there, no more than [a day](Self::with_longest_life) lies between them.
/// 6. `sub` is there. What else the claims say is a matter of [`ClaimMapping`].
///
/// What was verified is remembered, until other keys take the place of these.
///
/// ```
/// use tower_warden::{
///     Identity, RequireAuth, Role, UserId,
///     store::memory::MemoryStore,
///     token::{Algorithm, KeySet, SigningKey, TokenService, TokenVerifier},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Somewhere else:
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let issuer = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let published = serde_json::to_string(&issuer.jwks())?;
/// let pair = issuer.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await?;
///
/// // Here:
/// let verifier = TokenVerifier::new("https://id.example", "api")
///     .with_algorithms([Algorithm::EdDsa])
///     .with_jwks(&serde_json::from_str(&published)?);
/// let caller = verifier.verify(pair.access_token())?;
/// assert_eq!((caller.user_id().as_str(), caller.role()), ("ada", &Role::EDITOR));
/// let layer = RequireAuth::new(verifier);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenVerifier {
    rules: Arc<Rules>,
    keys: Arc<RwLock<Arc<ForeignKeys>>>,
    verified: Arc<VerifiedTokens>,
    clock: SharedClock,
}

/// What all tokens of an issuer have in common.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// `None`: nobody in particular.
    pub(super) issuer: Option<Box<str>>,
    /// `None`: the issuer's name is as it stands.
    tenants: Option<Tenants>,
    pub(super) audiences: Vec<Box<str>>,
    pub(super) audience_claim: Box<str>,
    pub(super) required: Vec<(Box<str>, Box<str>)>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) types: Vec<Box<str>>,
    pub(super) leeway: Duration,
    pub(super) longest_life: Option<Duration>,
    pub(super) mapping: ClaimMapping,
}

const CACHE_CAPACITY: usize = 10_000;
const LONGEST: usize = 16 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As for our own tokens, but for `x5t` and `x5t#S256`, which name a key and bring none.
const REFUSED_HEADERS: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "crit", "b64"];

impl Rules {
    pub(super) fn new() -> Self {
        Self {
            issuer: None,
            tenants: None,
            audiences: Vec::new(),
            audience_claim: "aud".into(),
            required: Vec::new(),
            algorithms: Algorithm::ALL.into(),
            types: ["at+jwt", "JWT"].map(Into::into).into(),
            leeway: Duration::ZERO,
            longest_life: Some(DAY),
            mapping: ClaimMapping::new(),
        }
    }

    /// Whether the header is one that may be read; its `alg` and its `kid` are the caller's to judge.
    pub(super) fn check_header(&self, parts: &Parts<'_>) -> Result<(), TokenError> {
        if REFUSED_HEADERS.iter().any(|name| parts.header.contains_key(*name)) {
            return Err(TokenError::Invalid("refused header"));
        }
        let Some(typ) = parts.header.get("typ") else { return Ok(()) };
        let typ = typ.as_str().ok_or(TokenError::Invalid("typ"))?;
        // RFC 7515, section 4.1.9: a media type, which may leave out `application/`.
        let short = match typ.get(..12) {
            Some(prefix) if prefix.eq_ignore_ascii_case("application/") => &typ[12..],
            _ => typ,
        };
        match self.types.iter().any(|allowed| allowed.eq_ignore_ascii_case(short)) {
            true => Ok(()),
            false => Err(TokenError::Invalid("typ")),
        }
    }

    /// Whom genuine claims identify, if their time is now. `key_of` is the issuer that alone may use
    /// the key that signed them, where there is such a one.
    pub(super) fn identity(
        &self,
        claims: &[u8],
        key_of: Option<&str>,
        now: SystemTime,
    ) -> Result<Identity, TokenError> {
        let mut claims = Members::parse(claims).map_err(|_| TokenError::Invalid("JSON"))?;
        let not_yet =
            |at: SystemTime, tolerance| at.duration_since(now).is_ok_and(|ahead| ahead > tolerance);
        let issuer = claims.take("iss").and_then(|issuer| issuer.text());
        if self.tenants.is_none()
            && self.issuer.is_some()
            && issuer.as_deref() != self.issuer.as_deref()
        {
            return Err(TokenError::Invalid("iss"));
        }
        let issued_at = take_seconds(&mut claims, "iat")?;
        let expires_at = take_seconds(&mut claims, "exp")?.ok_or(TokenError::Invalid("exp"))?;
        let not_before = take_seconds(&mut claims, "nbf")?.unwrap_or_default();
        if not_yet(instant(not_before, "nbf")?, self.leeway.max(CLOCK_SKEW)) {
            return Err(TokenError::Invalid("nbf"));
        }
        if let Some(issued_at) = issued_at {
            if not_yet(instant(issued_at, "iat")?, self.leeway.max(CLOCK_SKEW)) {
                return Err(TokenError::Invalid("iat"));
            }
            let life = expires_at.saturating_sub(issued_at);
            if life == 0 || self.longest_life.is_some_and(|longest| life > longest.as_secs()) {
                return Err(TokenError::Invalid("lifetime"));
            }
        }
        let expires_at = instant(expires_at, "exp")?;
        let claims = claims.into_values().map_err(|_| TokenError::Invalid("JSON"))?;
        let tenant = match (&self.tenants, &self.issuer) {
            (Some(tenants), Some(pattern)) => {
                Some(tenants.of_token(pattern, issuer.as_deref(), &claims, key_of)?.to_owned())
            }
            _ => None,
        };
        if !self.audiences.is_empty() {
            let named = claims.get(&*self.audience_claim).map(text_of).unwrap_or_default();
            if !named.iter().any(|name| self.audiences.iter().any(|ours| **ours == **name)) {
                return Err(TokenError::Invalid("aud"));
            }
        }
        for (name, value) in &self.required {
            if claims.get(&**name).and_then(|found| found.as_str()) != Some(value) {
                return Err(TokenError::Invalid("required claim"));
            }
        }
        let mut identity =
            self.mapping.identity(claims, tenant.as_deref())?.with_expires_at(expires_at);
        if let Some(issued_at) = issued_at {
            identity = identity.with_issued_at(instant(issued_at, "iat")?);
        }
        // Last of all, so that only what is genuine in every other respect is told to be expired.
        self.refuse_expired(&identity, now)?;
        Ok(identity)
    }

    fn set_tenants(&mut self, tenants: Tenants) {
        let name = self.issuer.as_deref().unwrap_or_default();
        assert!(
            tenants::is_pattern(name),
            "{name:?}: an issuer of tenants has {{tenantid}} in its name"
        );
        self.tenants = Some(tenants);
    }

    pub(super) fn refuse_expired(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let past = identity.expires_at().and_then(|end| now.duration_since(end).ok());
        match past {
            Some(past) if past >= self.leeway => Err(TokenError::Expired),
            _ => Ok(()),
        }
    }
}

impl TokenVerifier {
    /// For tokens of this issuer (`iss`) that are meant for this audience (`aud`). It has no keys yet,
    /// so knows nobody: [`with_jwks`](Self::with_jwks), [`with_key`](Self::with_key).
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let rules = Rules {
            issuer: Some(issuer.into().into()),
            audiences: vec![audience.into().into()],
            ..Rules::new()
        };
        Self {
            rules: Arc::new(rules),
            keys: Arc::default(),
            verified: Arc::new(VerifiedTokens::new(CACHE_CAPACITY)),
            clock: SystemClock::shared(),
        }
    }

    /// The same for these tenants of an issuer that has many: its name has `{tenantid}` in it, in whose
    /// place the `iss` of a token has the token's own `tid`. So Entra does it, at
    /// `https://login.microsoftonline.com/{tenantid}/v2.0`.
    ///
    /// 1. `tid` must be one of these, and `iss` the name with it in the place, to the letter.
    /// 2. A key that says which `issuer` it is for signs for no other tenant.
    /// 3. The id of a user begins with the tenant (`TENANT:ID`, after the prefix of the mapping), since
    ///    users of two tenants may have the same one.
    ///
    /// ```
    /// use tower_warden::token::TokenVerifier;
    /// let entra = "https://login.microsoftonline.com/{tenantid}/v2.0";
    /// let ours = ["72f988bf-86f1-41af-91ab-2d7cd011db47"];
    /// let verifier = TokenVerifier::new(entra, "api://shop").with_tenants(ours);
    /// ```
    ///
    /// # Panics
    /// Where the issuer's name has no `{tenantid}`, or a tenant is not made of letters, digits and `-`.
    pub fn with_tenants(self, tenants: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let tenants = Tenants::these(tenants.into_iter().map(Into::into));
        self.change(|rules| rules.set_tenants(tenants))
    }

    /// The same for all tenants, whoever they are. Anybody can be one at Entra, so what callers may
    /// do must come from what you know of them: by the claim `tid`, say.
    ///
    /// # Panics
    /// Where the issuer's name has no `{tenantid}`.
    pub fn with_any_tenant(self) -> Self {
        self.change(|rules| rules.set_tenants(Tenants::any()))
    }

    /// The same for one more audience.
    pub fn with_audience(self, audience: impl Into<String>) -> Self {
        self.change(|rules| rules.audiences.push(audience.into().into()))
    }

    /// The same, with another claim that says whom a token is for than `aud`: `client_id`, where access
    /// tokens of Cognito say it.
    pub fn with_audience_claim(self, claim: impl Into<String>) -> Self {
        self.change(|rules| rules.audience_claim = claim.into().into())
    }

    /// The same for tokens only that say this: Cognito's `token_use` is `access`, say.
    pub fn with_required_claim(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(|rules| rules.required.push((name.into().into(), value.into().into())))
    }

    /// The same with these algorithms only; all that there are, unless set.
    pub fn with_algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.change(|rules| rules.algorithms = algorithms.into_iter().collect())
    }

    /// The same with these values of the header `typ`, without `application/`; a token that has none is
    /// taken all the same.
    pub fn with_types(self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let types = types.into_iter().map(|typ| typ.into().into()).collect();
        self.change(|rules| rules.types = types)
    }

    /// For how long after its `exp` a token is still good: none unless set.
    pub fn with_leeway(self, leeway: Duration) -> Self {
        self.change(|rules| rules.leeway = leeway)
    }

    /// How long a token may live from its `iat` to its `exp`: a day unless set; `None`: for ever.
    pub fn with_longest_life(self, longest: Option<Duration>) -> Self {
        self.change(|rules| rules.longest_life = longest)
    }

    /// The same with another reading of the claims.
    pub fn with_mapping(self, mapping: ClaimMapping) -> Self {
        self.change(|rules| rules.mapping = mapping)
    }

    /// How many verified tokens are remembered, at most: 10,000 unless set. With 0, each is verified
    /// each time.
    pub fn with_cache_capacity(mut self, capacity: usize) -> Self {
        self.verified = Arc::new(VerifiedTokens::new(capacity));
        self
    }

    /// Where time comes from.
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self.forget()
    }

    /// The same with the keys of this set.
    pub fn with_jwks(mut self, jwks: &Jwks) -> Self {
        self.keys = Arc::new(RwLock::new(Arc::new(ForeignKeys::read(jwks))));
        self.forget()
    }

    /// The same with one more key.
    pub fn with_key(mut self, key: &VerifyingKey) -> Self {
        let keys = (*self.keys()).clone().with(&key.jwk());
        self.keys = Arc::new(RwLock::new(Arc::new(keys)));
        self.forget()
    }

    /// Puts other keys in the place of these, for all clones of this verifier: tokens of keys that are
    /// gone are invalid from now on.
    pub fn set_jwks(&self, jwks: &Jwks) {
        self.set_keys(ForeignKeys::read(jwks));
    }

    pub(crate) fn set_keys(&self, keys: ForeignKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.verified.forget();
    }

    /// Who presents this token.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a genuine token past its time, [`TokenError::Invalid`] for
    /// anything else.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_bytes(token.as_bytes())
    }

    pub(crate) fn verify_bytes(&self, token: &[u8]) -> Result<Identity, TokenError> {
        let now = self.clock.now();
        if let Some(identity) = self.verified.get(token) {
            return self.rules.refuse_expired(&identity, now).map(|()| identity);
        }
        let age = self.verified.age();
        let parts = Parts::read(token, LONGEST)?;
        self.rules.check_header(&parts)?;
        let algorithm = parts.text("alg").and_then(Algorithm::parse);
        let algorithm = algorithm.filter(|found| self.rules.algorithms.contains(found));
        let algorithm = algorithm.ok_or(TokenError::Invalid("alg"))?;
        let keys = self.keys();
        let (key, key_of) = keys.find(parts.key_id()?, algorithm)?;
        if !key.verify(parts.signed, &parts.signature) {
            return Err(TokenError::Invalid("signature"));
        }
        let identity = self.rules.identity(&parts.claims, key_of, now)?;
        self.verified.insert(age, token, identity.clone());
        Ok(identity)
    }

    /// The issuer.
    #[cfg(feature = "jwks")]
    pub(crate) fn issuer(&self) -> &str {
        self.rules.issuer.as_deref().unwrap_or_default()
    }

    #[cfg(feature = "jwks")]
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    fn keys(&self) -> Arc<ForeignKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self.forget()
    }

    /// Of other rules nothing is remembered.
    fn forget(mut self) -> Self {
        self.verified = Arc::new(self.verified.empty());
        self
    }
}

impl fmt::Debug for ForeignKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests;
