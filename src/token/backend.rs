//! The signatures: aws-lc-rs where its feature is on, else ring. The two have one interface but for
//! the little that stands here; no other file of the mint names either of them.

#[cfg(feature = "aws-lc-rs")]
pub(super) use with_aws_lc_rs::*;
#[cfg(not(feature = "aws-lc-rs"))]
pub(super) use with_ring::*;

use zeroize::Zeroizing;

/// A new key: PKCS#8 and SubjectPublicKeyInfo, in DER.
pub(super) struct KeyDer {
    pub(super) private: Zeroizing<Vec<u8>>,
    pub(super) public: Vec<u8>,
}

#[cfg(feature = "aws-lc-rs")]
mod with_aws_lc_rs {
    pub(in crate::token) use aws_lc_rs::{digest, hmac, rand, signature};

    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
        error::{KeyRejected, Unspecified},
        rsa::KeySize,
    };
    use signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey, RsaKeyPair,
        VerificationAlgorithm,
    };

    use super::KeyDer;

    pub(in crate::token) const ECDSA_P521: Option<&dyn VerificationAlgorithm> =
        Some(&signature::ECDSA_P521_SHA512_FIXED);

    #[derive(Clone)]
    pub(in crate::token) struct PublicKey(ParsedPublicKey);

    impl PublicKey {
        pub(in crate::token) fn new(
            algorithm: &'static dyn VerificationAlgorithm,
            key: &[u8],
        ) -> Result<Self, KeyRejected> {
            ParsedPublicKey::new(algorithm, key).map(Self)
        }

        pub(in crate::token) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            self.0.verify_sig(message, signature).is_ok()
        }
    }

    pub(in crate::token) fn p256_from_pkcs8(der: &[u8]) -> Result<EcdsaKeyPair, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
    }

    pub(in crate::token) fn generate_rsa_2048() -> Option<KeyDer> {
        let generate = || -> Result<_, Unspecified> {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
            let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?.as_ref().to_vec();
            let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?;
            Ok(KeyDer { private: private.into(), public: public.as_ref().to_vec() })
        };
        generate().ok()
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
mod with_ring {
    pub(in crate::token) use ring::{digest, hmac, rand, signature};

    use ring::error::KeyRejected;
    use signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
    };

    pub(in crate::token) const ECDSA_P521: Option<&dyn VerificationAlgorithm> = None;

    /// ring has no parsed form to keep. It unwraps the key anew each time, which is next to nothing
    /// beside the arithmetic. A point that is not on its curve is
    /// found then, and verifies nothing.
    #[derive(Clone)]
    pub(in crate::token) struct PublicKey(UnparsedPublicKey<Box<[u8]>>);

    impl PublicKey {
        pub(in crate::token) fn new(
            algorithm: &'static dyn VerificationAlgorithm,
            key: &[u8],
        ) -> Result<Self, KeyRejected> {
            Ok(Self(UnparsedPublicKey::new(algorithm, key.into())))
        }

        pub(in crate::token) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            self.0.verify(message, signature).is_ok()
        }
    }

    pub(in crate::token) fn p256_from_pkcs8(der: &[u8]) -> Result<EcdsaKeyPair, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &rand::SystemRandom::new())
    }
}
