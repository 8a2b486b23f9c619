//! Tokens that an app signed with a shared secret, before it moved here.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{ClaimMapping, TokenError, backend::hmac, claims::Parts, foreign::Rules};
use crate::{Identity, SharedClock, SystemClock};

/// Still takes the old tokens of an app that signed them with a shared secret (HS256), until a date,
/// so that moving to [`TokenService`](super::TokenService) logs nobody out.
///
/// Beside the new tokens, it stands in a [`FirstOf`](crate::auth::FirstOf). The header must say
/// `HS256` and nothing else; a key of ours is never taken for a secret, since it isn't one here.
/// Everything else is as strict as [`TokenVerifier`](super::TokenVerifier) is; `iss` and `aud` are
/// looked at where it is told what they are. Choose a date, and remove it then: who has the secret signs
/// tokens.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{RequireAuth, auth::FirstOf, token::Hs256Bridge};
/// # use tower_warden::{TokenService, store::memory::MemoryStore, token::{KeySet, SigningKey}};
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let until = SystemTime::now() + Duration::from_secs(30 * 24 * 60 * 60);
/// let old = Hs256Bridge::new(b"the secret of the app that was here before", until)?;
/// let auth = RequireAuth::new(FirstOf::new().or(tokens).or(old));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Hs256Bridge {
    key: Arc<hmac::Key>,
    until: SystemTime,
    rules: Arc<Rules>,
    clock: SharedClock,
}

/// A secret that anybody could guess, or knows.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::token::{Hs256Bridge, WeakSecret};
/// let refused = Hs256Bridge::new(b"secret", SystemTime::now());
/// assert!(matches!(refused, Err(WeakSecret { .. })));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a shared secret needs at least 16 bytes, and is no public key")]
#[non_exhaustive]
pub struct WeakSecret;

const SHORTEST: usize = 16;
/// RFC 7518, section 3.2: as long as the hash.
const AS_IT_SHOULD_BE: usize = 32;
const LONGEST: usize = 8 * 1024;

impl Hs256Bridge {
    /// Takes tokens that were signed with this secret, as its bytes are, until then.
    ///
    /// # Errors
    /// [`WeakSecret`] for one of fewer than 16 bytes, and for a public key, which everybody knows (as
    /// PEM or JSON, by mistake in place of a secret). One of fewer than 32, too short by RFC 7518, is
    /// logged as a warning.
    pub fn new(secret: &[u8], until: SystemTime) -> Result<Self, WeakSecret> {
        if secret.len() < SHORTEST || is_public(secret) {
            return Err(WeakSecret);
        }
        if secret.len() < AS_IT_SHOULD_BE {
            tracing::warn!("the secret of old tokens has fewer than 32 bytes: it could be guessed");
        }
        Ok(Self {
            key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            until,
            rules: Arc::new(Rules::new()),
            clock: SystemClock::shared(),
        })
    }

    /// The same for tokens of this issuer only.
    pub fn with_issuer(self, issuer: impl Into<String>) -> Self {
        self.change(|rules| rules.issuer = Some(issuer.into().into()))
    }

    /// The same for tokens that are meant for this audience, or for one of several.
    pub fn with_audience(self, audience: impl Into<String>) -> Self {
        self.change(|rules| rules.audiences.push(audience.into().into()))
    }

    /// How long a token may live from its `iat` to its `exp`: a day unless set; `None`: for ever.
    pub fn with_longest_life(self, longest: Option<std::time::Duration>) -> Self {
        self.change(|rules| rules.longest_life = longest)
    }

    /// The same with another reading of the claims.
    pub fn with_mapping(self, mapping: ClaimMapping) -> Self {
        self.change(|rules| rules.mapping = mapping)
    }

    /// Where time comes from.
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Who presents this token.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a genuine token past its time, or when the date has come;
    /// [`TokenError::Invalid`] for anything else.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_bytes(token.as_bytes())
    }

    pub(crate) fn verify_bytes(&self, token: &[u8]) -> Result<Identity, TokenError> {
        let parts = Parts::read(token, LONGEST)?;
        if parts.text("alg") != Some("HS256") {
            return Err(TokenError::Invalid("alg"));
        }
        self.rules.check_header(&parts)?;
        hmac::verify(&self.key, parts.signed, &parts.signature)
            .map_err(|_| TokenError::Invalid("signature"))?;
        let now = self.clock.now();
        let identity = self.rules.identity(&parts.claims, None, now)?;
        // Genuine: their owners log in anew.
        if now >= self.until {
            return Err(TokenError::Expired);
        }
        // Beyond the date nobody shall know it, whoever remembers what was said here.
        let ends = identity.expires_at().map_or(self.until, |end| end.min(self.until));
        Ok(identity.with_expires_at(ends))
    }

    fn change(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }
}

/// Whether this is the text of a public key: whoever knows it would sign tokens with it.
fn is_public(secret: &[u8]) -> bool {
    let text = secret.trim_ascii();
    let holds = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    let pem = text.starts_with(b"-----BEGIN ") && (holds(b"PUBLIC KEY") || holds(b"CERTIFICATE"));
    pem || (text.starts_with(b"{") && holds(b"\"kty\"") && !holds(b"\"oct\""))
}

impl fmt::Debug for Hs256Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hs256Bridge").field("until", &self.until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
    use serde_json::{Value, json};

    use super::*;
    use crate::{Clock, ManualClock, Role};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn token(secret: &[u8], header: &Value, claims: &Value) -> String {
        let signed =
            BASE64URL.encode(header.to_string()) + "." + &BASE64URL.encode(claims.to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, signed.as_bytes());
        signed + "." + &BASE64URL.encode(tag)
    }

    #[test]
    fn old_tokens_are_taken_until_the_date() {
        let clock = ManualClock::new();
        let hour = Duration::from_secs(3600);
        let until = clock.now() + hour;
        let bridge = Hs256Bridge::new(SECRET, until)
            .unwrap()
            .with_issuer("old")
            .with_clock(Arc::new(clock.clone()));
        let now = clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let claims =
            json!({"iss": "old", "sub": "7", "role": "admin", "iat": now, "exp": now + 7200});
        let good = token(SECRET, &header, &claims);
        let caller = bridge.verify(&good).unwrap();
        assert_eq!((caller.user_id().as_str(), caller.role()), ("7", &Role::ADMIN));
        assert_eq!(caller.expires_at(), Some(until), "nobody is known for longer");

        let changed = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            token(SECRET, &header, &claims)
        };
        for (case, token, reason) in [
            ("another secret", token(&[7; 32], &header, &claims), "signature"),
            ("none", token(SECRET, &json!({"alg": "none"}), &claims), "alg"),
            ("HS512", token(SECRET, &json!({"alg": "HS512"}), &claims), "alg"),
            ("at+jwt is ours", token(SECRET, &json!({"alg": "HS256", "typ": "x"}), &claims), "typ"),
            (
                "crit",
                token(SECRET, &json!({"alg": "HS256", "crit": []}), &claims),
                "refused header",
            ),
            ("iss", changed("iss", json!("new")), "iss"),
            ("no sub", changed("sub", json!("")), "sub"),
            ("exp text", changed("exp", json!("1")), "exp"),
            ("a year", changed("exp", json!(now + 31_536_000)), "lifetime"),
        ] {
            let refused = bridge.verify(&token);
            assert!(
                matches!(refused, Err(TokenError::Invalid(found)) if found == reason),
                "{case}"
            );
        }

        clock.advance(hour);
        assert!(matches!(bridge.verify(&good), Err(TokenError::Expired)));
        assert_eq!(Hs256Bridge::new(b"short", until).unwrap_err(), WeakSecret);
        // What everybody knows is no secret: the public key of RS256, handed over by mistake.
        for public in ["rsa-public", "rsa-public-pkcs1", "ed25519-public", "tls-certificate"] {
            let path = format!("{}/tests/support/keys/{public}.pem", env!("CARGO_MANIFEST_DIR"));
            let pem = std::fs::read(path).unwrap();
            assert_eq!(Hs256Bridge::new(&pem, until).unwrap_err(), WeakSecret, "{public}");
            let jwk = br#" {"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}"#;
            assert_eq!(Hs256Bridge::new(jwk, until).unwrap_err(), WeakSecret);
        }
        assert!(!format!("{bridge:?}").contains("0123"));
    }
}
