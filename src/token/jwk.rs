//! Public keys as JSON (RFC 7517): our own for others, and those of others for us.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Serialize};

use super::{
    backend::{
        ECDSA_P521,
        digest::{SHA256, digest},
        signature::{self, VerificationAlgorithm},
    },
    der,
    keys::rsa_public,
};

/// A signature algorithm of tokens (RFC 7518, section 3.1; RFC 8037, section 3.1). None of them
/// signs with what also verifies.
///
/// ```
/// use tower_warden::token::Algorithm;
/// assert_eq!(Algorithm::parse("ES256"), Some(Algorithm::Es256));
/// assert_eq!(Algorithm::parse("none"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    Rs256,
    /// RSA, PKCS#1 v1.5, SHA-384.
    Rs384,
    /// RSA, PKCS#1 v1.5, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// RSA, PSS, SHA-384.
    Ps384,
    /// RSA, PSS, SHA-512.
    Ps512,
    /// ECDSA on P-256, SHA-256.
    Es256,
    /// ECDSA on P-384, SHA-384.
    Es384,
    /// ECDSA on P-521, SHA-512: with the feature `aws-lc-rs` only, since ring doesn't have the curve.
    /// Without it, keys of this kind are left out of key sets. Keys of other issuers alone.
    Es512,
    /// EdDSA on Ed25519.
    EdDsa,
}

/// A public key as JSON (RFC 7517, section 4).
///
/// What it is made of is kept as it was read; the members of private keys are not read at all.
///
/// ```
/// use tower_warden::token::SigningKey;
/// let key = SigningKey::generate_ed25519()?;
/// let jwk = serde_json::to_value(key.verifying_key().jwk())?;
/// assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["alg"]), (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into()));
/// assert_eq!(jwk["kid"], key.verifying_key().key_id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Jwk {
    kty: String,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    public_use: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    /// Entra says here whose tokens a key signs.
    #[serde(skip_serializing)]
    issuer: Option<String>,
    /// Ours say `use` instead (RFC 7517, section 4.3).
    #[serde(skip_serializing)]
    key_ops: Option<Vec<String>>,
}

/// A set of public keys (RFC 7517, section 5): the document of a `jwks_uri`.
///
/// Keys in it that can't be read are left out, as section 5 asks for.
///
/// ```
/// use tower_warden::token::Jwks;
/// let document = r#"{"keys": [
///     {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "1"}
/// ]}"#;
/// let keys: Jwks = serde_json::from_str(document)?;
/// assert_eq!(keys.keys()[0].key_id(), Some("1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jwks {
    keys: Vec<Jwk>,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Its name, as `alg` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The `kty` and the `crv` of its keys.
    fn key_type(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Es256 => ("EC", Some("P-256")),
            Self::Es384 => ("EC", Some("P-384")),
            Self::Es512 => ("EC", Some("P-521")),
            Self::EdDsa => ("OKP", Some("Ed25519")),
            _ => ("RSA", None),
        }
    }

    /// `None` where the backend doesn't have it.
    pub(super) fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => return ECDSA_P521,
            Self::EdDsa => &signature::ED25519,
        })
    }
}

impl Jwk {
    /// The name by which tokens call the key (`kid`).
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whose tokens alone it signs, where that is said.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Its thumbprint by SHA-256 (RFC 7638), in base64url: the hash of the required members, sorted,
    /// without white space. `None` where one is missing.
    #[must_use]
    pub fn thumbprint(&self) -> Option<String> {
        let (crv, x) = (self.crv.as_ref(), self.x.as_ref());
        let members = match &*self.kty {
            "RSA" => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, self.e.as_ref()?, self.n.as_ref()?)
            }
            "EC" => {
                let y = self.y.as_ref()?;
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{y}"}}"#, crv?, x?)
            }
            "OKP" => format!(r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#, crv?, x?),
            _ => return None,
        };
        Some(BASE64URL.encode(digest(&SHA256, members.as_bytes())))
    }

    /// Of a key as the backends take it: PKCS#1 for RSA, else the point.
    pub(super) fn of_key(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let (kty, crv) = algorithm.key_type();
        let encode = |part| Some(BASE64URL.encode(part));
        let jwk = Self { kty: kty.into(), crv: crv.map(Into::into), ..Self::default() };
        match (kty, key) {
            ("RSA", key) => {
                let (n, e) = rsa_public(key)?;
                Some(Self { n: encode(n), e: encode(e), ..jwk })
            }
            // SEC 1, section 2.3.3: 4 is a point with both coordinates.
            ("EC", [4, point @ ..]) if matches!(point.len(), 64 | 96) => {
                let (x, y) = point.split_at(point.len() / 2);
                Some(Self { x: encode(x), y: encode(y), ..jwk })
            }
            ("OKP", x) if x.len() == 32 => Some(Self { x: encode(x), ..jwk }),
            _ => None,
        }
    }

    /// Which of the algorithms it may be used with: those of its kind, or the one that it names; none
    /// for a key that is not for signatures.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        let signs = self.public_use.as_deref().is_none_or(|use_| use_ == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        Algorithm::ALL.into_iter().filter(move |algorithm| {
            let (kty, crv) = algorithm.key_type();
            let named = self.alg.as_deref().is_none_or(|name| name == algorithm.name());
            signs && named && self.kty == kty && (crv.is_none() || self.crv.as_deref() == crv)
        })
    }

    /// The key as the backends take it: PKCS#1 for RSA, else the point.
    pub(super) fn to_backend(&self) -> Option<Vec<u8>> {
        let decode = |part: &Option<String>| BASE64URL.decode(part.as_deref()?).ok();
        match &*self.kty {
            "RSA" => Some(der::rsa_public_key(&decode(&self.n)?, &decode(&self.e)?)),
            "EC" => Some([&[4][..], &decode(&self.x)?, &decode(&self.y)?].concat()),
            "OKP" => decode(&self.x),
            _ => None,
        }
    }

    /// The same, said to be for tokens of this algorithm, under this name.
    pub(super) fn for_tokens(self, algorithm: Algorithm, key_id: &str) -> Self {
        Self {
            public_use: Some("sig".into()),
            alg: Some(algorithm.name().into()),
            kid: Some(key_id.into()),
            ..self
        }
    }
}

impl Jwks {
    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }
}

impl FromIterator<Jwk> for Jwks {
    fn from_iter<I: IntoIterator<Item = Jwk>>(keys: I) -> Self {
        Self { keys: keys.into_iter().collect() }
    }
}

impl<'de> Deserialize<'de> for Jwks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document = Document::deserialize(deserializer)?;
        let read = |key| serde_json::from_value(key).ok();
        Ok(document.keys.into_iter().filter_map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (case, jwk, expected) in [
            (
                "RFC 7638, section 3.1",
                r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            (
                "RFC 8037, appendix A.3",
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            let jwk: Jwk = serde_json::from_str(jwk).unwrap();
            assert_eq!(jwk.thumbprint().as_deref(), Some(expected), "{case}");
        }
        for jwk in ["{}", r#"{"kty":"oct","k":"AA"}"#, r#"{"kty":"RSA","e":"AQAB"}"#] {
            assert_eq!(serde_json::from_str::<Jwk>(jwk).unwrap().thumbprint(), None, "{jwk}");
        }
    }

    #[test]
    fn keys_that_cant_be_read_are_left_out_and_private_members_too() {
        let document = r#"{"keys": [7, {"kty": 1}, {"kty": "OKP", "x": "AA", "d": "secret"}]}"#;
        let jwks: Jwks = serde_json::from_str(document).unwrap();
        let written = serde_json::to_string(&jwks).unwrap();
        assert_eq!(written, r#"{"keys":[{"kty":"OKP","x":"AA"}]}"#);
        assert!(serde_json::from_str::<Jwks>(r#"{"keys": 1}"#).is_err());
    }
}
