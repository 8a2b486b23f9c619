//! The keys of a service: one signs, several verify, and others take their place while it runs.

use super::{Jwks, SigningKey, VerifyingKey};

/// The keys of a token service: one signs, several verify.
///
/// To rotate: add the new key to verify with, everywhere; sign with it; once the last token of the
/// old key has ended, drop the old one. Clones share the keys, for two services of one process, say.
///
/// ```
/// use tower_warden::token::{KeySet, SigningKey};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (old, new) = (SigningKey::generate_ed25519()?, SigningKey::generate_ed25519()?);
/// let keys = KeySet::new(new).with_verifying_key(old.verifying_key().clone());
/// assert_eq!(keys.clone().jwks().keys().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeySet {
    signing: SigningKey,
    verifying: Vec<VerifyingKey>,
}

impl KeySet {
    /// A set of one key, which signs and verifies.
    #[must_use]
    pub fn new(signing: SigningKey) -> Self {
        let verifying = vec![signing.verifying_key().clone()];
        Self { signing, verifying }
    }

    /// The same set with a further key that verifies: one that signed before, or will.
    #[must_use]
    pub fn with_verifying_key(mut self, key: VerifyingKey) -> Self {
        if !self.verifying.contains(&key) {
            self.verifying.push(key);
        }
        self
    }

    /// The public keys, for others to verify with.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        self.verifying.iter().map(VerifyingKey::jwk).collect()
    }

    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    pub(super) fn find(&self, key_id: &str) -> Option<&VerifyingKey> {
        self.verifying.iter().find(|key| key.key_id() == key_id)
    }

    /// The key whose tokens begin with this very text, as all do that are signed here.
    pub(super) fn of_header(&self, header: &str) -> Option<&VerifyingKey> {
        self.verifying.iter().find(|key| key.header() == header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! pem {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/support/keys/", $name, ".pem"))
        };
    }

    #[test]
    fn a_key_set_shows_public_members_only() {
        let keys = [pem!("rsa-private").as_slice(), pem!("es256-private"), pem!("ed25519-private")]
            .map(|pem| SigningKey::from_pem(pem).unwrap());
        let [rsa, p256, ed25519] = keys;
        let debug = format!("{rsa:?}{p256:?}{ed25519:?}");
        let set = KeySet::new(rsa)
            .with_verifying_key(p256.verifying_key().clone())
            .with_verifying_key(ed25519.verifying_key().clone())
            .with_verifying_key(p256.verifying_key().clone());

        let jwks = serde_json::to_value(set.jwks()).unwrap();
        let public = ["kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"];
        let keys = jwks["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 3);
        for key in keys {
            assert!(key.as_object().unwrap().keys().all(|name| public.contains(&name.as_str())));
            assert!(set.find(key["kid"].as_str().unwrap()).is_some());
            assert_eq!(key["use"], "sig");
            assert!(debug.contains(key["kid"].as_str().unwrap()));
        }
        assert_eq!(keys[0]["alg"], "RS256");
        assert_eq!(keys[1]["crv"], "P-256");
        assert_eq!(keys[2]["alg"], "EdDSA");
    }
}
