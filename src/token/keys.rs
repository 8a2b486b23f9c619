//! What signs access tokens, and what verifies them.
//!
//! The algorithm is a property of the key, never of the token: RSA signs RS256, P-256 signs ES256,
//! Ed25519 signs EdDSA. A key is known by its thumbprint (RFC 7638), which is its `kid`: two files
//! with one key have one `kid`, and nobody has to invent names.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Algorithm, Jwk, KeyError,
    backend::{
        self,
        rand::SystemRandom,
        signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
    },
    der::{OBJECT_IDENTIFIER, OCTET_STRING, Reader},
};

/// A private key, and the public key that belongs to it. Clones share it.
///
/// The backend holds the private key, parsed once. It can't be read back, nor printed. aws-lc-rs
/// wipes its memory when dropped; ring, which has no such feature, doesn't.
///
/// ```
/// use tower_warden::token::{Algorithm, SigningKey};
/// let key = SigningKey::generate_ed25519()?; // from a file: `load_or_generate`, `from_pem`
/// assert_eq!(key.verifying_key().algorithm(), Algorithm::EdDsa);
/// assert!(!format!("{key:?}").contains("private"));
/// # Ok::<(), tower_warden::token::KeyError>(())
/// ```
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    verifying: VerifyingKey,
}

enum Pair {
    Rsa { pair: RsaKeyPair, signature_len: usize },
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A public key, parsed once. Two are equal when they are the same key.
///
/// ```
/// use tower_warden::token::VerifyingKey;
/// let pem = b"-----BEGIN PUBLIC KEY-----
/// MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
/// -----END PUBLIC KEY-----";
/// let key = VerifyingKey::from_pem(pem)?;
/// assert_eq!(Some(key.key_id().to_owned()), key.jwk().thumbprint()); // RFC 7638
/// # Ok::<(), tower_warden::token::KeyError>(())
/// ```
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key_id: Arc<str>,
    /// The first part of the tokens that this key signs here.
    header: Arc<str>,
    jwk: Jwk,
    key: backend::PublicKey,
}

const SHORTEST_RSA: usize = 2048;

/// The `typ` of access tokens (RFC 9068, section 2.1).
pub(super) const TOKEN_TYPE: &str = "at+jwt";

impl SigningKey {
    /// Reads the first private key in PEM text: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY`
    /// (PKCS#1), not encrypted. With ring, RSA keys have at most 4096 bits.
    ///
    /// # Errors
    /// [`KeyError`] where there is none, or none that may be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let (kind, der) = section(pem, &[SectionKind::PrivateKey, SectionKind::RsaPrivateKey])?;
        match kind {
            SectionKind::RsaPrivateKey => Self::from_pkcs1(&der),
            _ => Self::from_pkcs8(&der),
        }
    }

    /// A new Ed25519 key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`] where the system has none to give.
    pub fn generate_ed25519() -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        Self::from_pkcs8(pkcs8.map_err(|_| KeyError::NoRandomness)?.as_ref())
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// The signature of a message, as JWS has it (RFC 7518, section 3; RFC 8037, section 3.1).
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::Rsa { pair, signature_len } => {
                let mut signature = vec![0; *signature_len];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::P256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, private) = pkcs8(der)?;
        let (pair, verifying) = match algorithm {
            Algorithm::Es256 => {
                let pair = backend::p256_from_pkcs8(der).map_err(|_| KeyError::Malformed)?;
                let public = VerifyingKey::new(algorithm, pair.public_key().as_ref())?;
                (Pair::P256(pair), public)
            }
            Algorithm::EdDsa => {
                // Many files, OpenSSL's too, don't repeat the public key, which this would check.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
                let pair = pair.map_err(|_| KeyError::Malformed)?;
                let public = VerifyingKey::new(algorithm, pair.public_key().as_ref())?;
                (Pair::Ed25519(pair), public)
            }
            _ => return Self::from_pkcs1(private),
        };
        Ok(Self { pair: Arc::new(pair), verifying })
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        // Backends refuse weak keys too, but don't tell why.
        let modulus = rsa_private_modulus(der).ok_or(KeyError::Malformed)?;
        refuse_weak(modulus)?;
        let pair = RsaKeyPair::from_der(der).map_err(|_| KeyError::Malformed)?;
        let verifying = VerifyingKey::new(Algorithm::Rs256, pair.public_key().as_ref())?;
        let pair = Pair::Rsa { pair, signature_len: modulus.len() };
        Ok(Self { pair: Arc::new(pair), verifying })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("verifying", &self.verifying).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// Reads the first public key in PEM text: `PUBLIC KEY` (SubjectPublicKeyInfo) or
    /// `RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    /// [`KeyError`] where there is none, or none that may be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        // The reader knows but the first of the two labels. The DER tells the contents apart.
        let pem = String::from_utf8_lossy(pem).replace(" RSA PUBLIC KEY-", " PUBLIC KEY-");
        let (_, der) = section(pem.as_bytes(), &[SectionKind::PublicKey])?;
        match rsa_public(&der) {
            Some(_) => Self::new(Algorithm::Rs256, &der),
            None => subject_public_key(&der).and_then(|(algorithm, key)| Self::new(algorithm, key)),
        }
    }

    /// Its `kid`: the thumbprint by SHA-256 (RFC 7638), in base64url.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The key for others to verify with (RFC 7517): public members only.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        self.jwk.clone()
    }

    /// The `alg` of what it verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The first part of the tokens that this key signs here, written once: in base64url.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify(message, signature)
    }

    /// From what the backends take: PKCS#1 for RSA, else the point.
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, KeyError> {
        let jwk = Jwk::of_key(algorithm, key).ok_or(KeyError::Malformed)?;
        if let Some((modulus, _)) = rsa_public(key).filter(|_| algorithm == Algorithm::Rs256) {
            refuse_weak(modulus)?;
        }
        let verification = algorithm.verification().ok_or(KeyError::Malformed)?;
        let parsed = backend::PublicKey::new(verification, key);
        let key_id = jwk.thumbprint().ok_or(KeyError::Malformed)?;
        let header = json!({ "alg": algorithm.name(), "typ": TOKEN_TYPE, "kid": key_id });
        Ok(Self {
            algorithm,
            header: BASE64URL.encode(header.to_string()).into(),
            jwk: jwk.for_tokens(algorithm, &key_id),
            key_id: key_id.into(),
            key: parsed.map_err(|_| KeyError::Malformed)?,
        })
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id
    }
}

impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

pub(super) fn refuse_weak(modulus: &[u8]) -> Result<(), KeyError> {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match modulus.len() * 8 - unused {
        SHORTEST_RSA.. => Ok(()),
        bits => Err(KeyError::WeakRsa { bits }),
    }
}

/// The first section of one of these kinds.
fn section(
    pem: &[u8],
    kinds: &[SectionKind],
) -> Result<(SectionKind, Zeroizing<Vec<u8>>), KeyError> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem)
        .map_while(Result::ok)
        .map(|(kind, der)| (kind, Zeroizing::new(der)))
        .find(|(kind, _)| kinds.contains(kind))
        .ok_or(KeyError::NotFound)
}

/// PKCS#8 (RFC 5958, section 2): the algorithm, and the private key inside.
fn pkcs8(der: &[u8]) -> Result<(Algorithm, &[u8]), KeyError> {
    let read = || {
        let mut key = Reader::new(der).sequence()?;
        key.unsigned()?;
        Some((key.sequence()?, key.read(OCTET_STRING)?))
    };
    let (identifier, private) = read().ok_or(KeyError::Malformed)?;
    Ok((algorithm(identifier)?, private))
}

/// SubjectPublicKeyInfo (RFC 5280, section 4.1): the algorithm, and the public key inside.
fn subject_public_key(der: &[u8]) -> Result<(Algorithm, &[u8]), KeyError> {
    let read = || {
        let mut key = Reader::new(der).sequence()?;
        Some((key.sequence()?, key.bits()?))
    };
    let (identifier, public) = read().ok_or(KeyError::Malformed)?;
    Ok((algorithm(identifier)?, public))
}

/// AlgorithmIdentifier (RFC 3279, sections 2.3.1 and 2.3.5; RFC 8410, section 3).
fn algorithm(mut identifier: Reader<'_>) -> Result<Algorithm, KeyError> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    match identifier.read(OBJECT_IDENTIFIER).ok_or(KeyError::Malformed)? {
        RSA => Ok(Algorithm::Rs256),
        EC if identifier.read(OBJECT_IDENTIFIER) == Some(P256) => Ok(Algorithm::Es256),
        ED25519 => Ok(Algorithm::EdDsa),
        _ => Err(KeyError::Unsupported),
    }
}

/// RSAPublicKey (RFC 8017, appendix A.1.1): modulus and exponent.
pub(super) fn rsa_public(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut key = Reader::new(der).sequence()?;
    Some((key.unsigned()?, key.unsigned()?))
}

/// RSAPrivateKey (RFC 8017, appendix A.1.2): version, modulus, and what is the backend's.
fn rsa_private_modulus(der: &[u8]) -> Option<&[u8]> {
    let mut key = Reader::new(der).sequence()?;
    key.unsigned()?;
    key.unsigned()
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
    fn what_a_key_signs_its_public_file_verifies() {
        for (case, private, public, len) in [
            ("RSA", pem!("rsa-private").as_slice(), pem!("rsa-public").as_slice(), 256),
            ("PKCS#1", pem!("rsa-private-pkcs1"), pem!("rsa-public-pkcs1"), 256),
            ("P-256", pem!("es256-private"), pem!("es256-public"), 64),
            ("Ed25519", pem!("ed25519-private"), pem!("ed25519-public"), 64),
        ] {
            let private = SigningKey::from_pem(private).unwrap();
            let public = VerifyingKey::from_pem(public).unwrap();
            assert_eq!(private.verifying_key(), &public, "{case}");
            assert_eq!(private.verifying_key().key_id(), public.key_id(), "{case}");

            let signature = private.sign(b"message").unwrap();
            assert_eq!(signature.len(), len, "{case}");
            assert!(public.verify(b"message", &signature), "{case}");
            assert!(!public.verify(b"massage", &signature), "{case}");
            assert!(!public.verify(b"message", &signature[1..]), "{case}");
        }
    }

    #[test]
    fn unusable_keys_are_refused_each_for_its_reason() {
        let damaged = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        for (case, pem, error) in [
            ("nothing", b"".as_slice(), KeyError::NotFound),
            ("no end", b"-----BEGIN PRIVATE KEY-----\nAA==", KeyError::NotFound),
            ("a public key", pem!("rsa-public"), KeyError::NotFound),
            ("1024 bits", pem!("rsa-1024-private"), KeyError::WeakRsa { bits: 1024 }),
            ("P-384", pem!("p384-private"), KeyError::Unsupported),
            ("damaged", damaged.as_bytes(), KeyError::Malformed),
        ] {
            assert_eq!(SigningKey::from_pem(pem).unwrap_err(), error, "{case}");
        }
        for (case, pem, error) in [
            ("a private key", pem!("rsa-private").as_slice(), KeyError::NotFound),
            ("1024 bits", pem!("rsa-1024-public"), KeyError::WeakRsa { bits: 1024 }),
            ("P-384", pem!("p384-public"), KeyError::Unsupported),
        ] {
            assert_eq!(VerifyingKey::from_pem(pem).unwrap_err(), error, "{case}");
        }
    }
}
