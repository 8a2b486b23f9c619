//! The keys of another issuer.

use super::super::{Algorithm, Jwk, Jwks, TokenError, backend::PublicKey};

/// Public keys, each parsed for every algorithm that it may be used with.
#[derive(Clone, Default)]
pub(crate) struct ForeignKeys(Vec<ForeignKey>);

#[derive(Clone)]
struct ForeignKey {
    id: Option<Box<str>>,
    /// Who alone may sign with it.
    issuer: Option<Box<str>>,
    uses: Vec<(Algorithm, PublicKey)>,
}

/// More keys than any issuer has, and few enough to look through.
const MOST: usize = 100;

impl ForeignKeys {
    /// Those of a set that can be used. Keys for encryption, of other kinds, or weak ones are left out.
    pub(crate) fn read(jwks: &Jwks) -> Self {
        Self(jwks.keys().iter().filter_map(ForeignKey::read).take(MOST).collect())
    }

    pub(super) fn with(mut self, jwk: &Jwk) -> Self {
        self.0.extend(ForeignKey::read(jwk));
        self
    }

    #[cfg(feature = "jwks")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of this name, for this algorithm, and whose alone it is; without a name the only one for
    /// it that there is.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<(&PublicKey, Option<&str>), TokenError> {
        let mut named =
            self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Err(TokenError::Invalid(UNKNOWN_KEY));
        }
        let mut usable = named.filter_map(|key| Some((key.of(algorithm)?, key.issuer.as_deref())));
        match (usable.next(), usable.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(TokenError::Invalid("alg")),
            // Two keys, and nothing that tells which.
            (Some(_), Some(_)) => Err(TokenError::Invalid(UNKNOWN_KEY)),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(|key| key.id.as_deref())
    }
}

/// Why a token is invalid whose key isn't there, or not there yet.
pub(crate) const UNKNOWN_KEY: &str = "kid";

impl ForeignKey {
    fn read(jwk: &Jwk) -> Option<Self> {
        let der = jwk.to_backend()?;
        let parse = |algorithm: Algorithm| {
            Some((algorithm, PublicKey::new(algorithm.verification()?, &der).ok()?))
        };
        let uses: Vec<_> = jwk.algorithms().filter_map(parse).collect();
        let (id, issuer) = (jwk.key_id().map(Into::into), jwk.issuer().map(Into::into));
        (!uses.is_empty()).then_some(Self { id, issuer, uses })
    }

    fn of(&self, algorithm: Algorithm) -> Option<&PublicKey> {
        self.uses.iter().find(|(found, _)| *found == algorithm).map(|(_, key)| key)
    }
}
