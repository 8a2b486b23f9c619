//! A key pair kept in two files, made where there is none.

use std::{fs, io, path::Path, thread, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

#[cfg(feature = "aws-lc-rs")]
use super::backend;
use super::{
    KeyError, KeyFileError, SigningKey, VerifyingKey,
    backend::{
        KeyDer,
        rand::SystemRandom,
        signature::{Ed25519KeyPair, KeyPair},
    },
};
use crate::new_file::{Draft, warn_if_readable_by_others};

impl SigningKey {
    /// Reads a pair of PEM files, of any algorithm that [`from_pem`](Self::from_pem) reads; where
    /// neither is there, first generates an Ed25519 key into them. The private one is readable by its
    /// owner only; one that is not is read all the same (platforms mount secrets with modes of their
    /// own), and that is logged as a warning.
    ///
    /// Any number of processes may start at once: one of them makes the pair, and all read it.
    ///
    /// ```
    /// use tower_warden::token::{Algorithm, SigningKey};
    /// # let directory = tempfile::tempdir()?;
    /// # let (private, public) = (directory.path().join("private.pem"), directory.path().join("public.pem"));
    /// let key = SigningKey::load_or_generate(&private, &public)?;
    /// assert_eq!(key.verifying_key().algorithm(), Algorithm::EdDsa);
    /// let again = SigningKey::load_or_generate(&private, &public)?;
    /// assert_eq!(again.verifying_key(), key.verifying_key());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyFileError`] names the file: one that can't be read or written or holds no usable key,
    /// or the one that is missing while the other is there; or says that the two are no pair.
    pub fn load_or_generate(
        private: impl AsRef<Path>,
        public: impl AsRef<Path>,
    ) -> Result<Self, KeyFileError> {
        load_or(generate_ed25519, private.as_ref(), public.as_ref())
    }

    /// The same, but for the kind of key that is generated: RSA of 2048 bits, for clients that know no
    /// other. ring makes none, so that it takes the feature `aws-lc-rs`.
    ///
    /// # Errors
    /// As [`load_or_generate`](Self::load_or_generate).
    #[cfg(feature = "aws-lc-rs")]
    pub fn load_or_generate_rsa(
        private: impl AsRef<Path>,
        public: impl AsRef<Path>,
    ) -> Result<Self, KeyFileError> {
        load_or(backend::generate_rsa_2048, private.as_ref(), public.as_ref())
    }
}

type Generate = fn() -> Option<KeyDer>;

fn load_or(generate: Generate, private: &Path, public: &Path) -> Result<SigningKey, KeyFileError> {
    if !exists(private)? && !exists(public)? {
        write_new(generate, private, public)?;
    }
    wait_for_both(private, public)?;
    let key = load(private, public)?;
    warn_if_readable_by_others(private);
    Ok(key)
}

fn generate_ed25519() -> Option<KeyDer> {
    /// SubjectPublicKeyInfo (RFC 8410, section 4) up to the 32 bytes of the key.
    const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
    let private = Zeroizing::new(private.as_ref().to_vec());
    let pair = Ed25519KeyPair::from_pkcs8(&private).ok()?;
    Some(KeyDer { private, public: [&PUBLIC[..], pair.public_key().as_ref()].concat() })
}

fn load(private: &Path, public: &Path) -> Result<SigningKey, KeyFileError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        |source| KeyFileError::Key { path, source }
    };
    let read = |path| fs::read(path).map(Zeroizing::new).map_err(at(path));
    let signing = SigningKey::from_pem(&read(private)?).map_err(unusable(private))?;
    let verifying = VerifyingKey::from_pem(&read(public)?).map_err(unusable(public))?;
    if *signing.verifying_key() != verifying {
        return Err(KeyFileError::Unpaired { private: private.into(), public: public.into() });
    }
    Ok(signing)
}

/// Whoever publishes the private file owns the pair, and publishes the other. All others drop theirs.
fn write_new(generate: Generate, private: &Path, public: &Path) -> Result<(), KeyFileError> {
    let key = generate().ok_or_else(|| KeyFileError::Key {
        path: private.to_owned(),
        source: KeyError::NoRandomness,
    })?;
    // Both are written before either is seen, so that next to no time lies between the two.
    let private_draft =
        Draft::write(private, &pem("PRIVATE KEY", &key.private), 0o600).map_err(at(private))?;
    let public_draft =
        Draft::write(public, &pem("PUBLIC KEY", &key.public), 0o644).map_err(at(public))?;
    if private_draft.publish().map_err(at(private))? {
        public_draft.publish().map_err(at(public))?;
        tracing::info!(private = %private.display(), public = %public.display(), "key pair generated");
    }
    Ok(())
}

/// Another process may be between its two files. A file that is missing for longer is missing.
fn wait_for_both(private: &Path, public: &Path) -> Result<(), KeyFileError> {
    let mut missing = private;
    for _ in 0..20 {
        match (exists(private)?, exists(public)?) {
            (true, true) => return Ok(()),
            (false, _) => missing = private,
            (true, false) => missing = public,
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(KeyFileError::Missing { path: missing.into() })
}

/// RFC 7468, section 2.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Room for all of it at once: growing would leave copies behind.
    let mut pem = Zeroizing::new(String::with_capacity(2 * der.len() + 128));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        BASE64.encode_string(line, &mut pem);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

fn exists(path: &Path) -> Result<bool, KeyFileError> {
    path.try_exists().map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    |source| KeyFileError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "aws-lc-rs")]
    use crate::token::Algorithm;

    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/keys/");

    fn load_keys(private: &str, public: &str) -> Result<SigningKey, KeyFileError> {
        SigningKey::load_or_generate(format!("{KEYS}{private}"), format!("{KEYS}{public}"))
    }

    #[test]
    fn a_pair_is_read() {
        load_keys("rsa-private.pem", "rsa-public.pem").unwrap();
        load_keys("ed25519-private.pem", "ed25519-public.pem").unwrap();
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        use KeyFileError::{Key, Missing, Unpaired};
        let error = load_keys("rsa-private.pem", "no-such.pem").unwrap_err();
        assert!(matches!(&error, Missing { path } if path.ends_with("no-such.pem")), "{error}");
        let error = load_keys("no-such.pem", "rsa-public.pem").unwrap_err();
        assert!(matches!(&error, Missing { path } if path.ends_with("no-such.pem")), "{error}");
        let error = load_keys("other-rsa-private.pem", "rsa-public.pem").unwrap_err();
        assert!(matches!(&error, Unpaired { .. }), "{error}");
        let error = load_keys("rsa-1024-private.pem", "rsa-1024-public.pem").unwrap_err();
        assert!(matches!(&error, Key { source: KeyError::WeakRsa { bits: 1024 }, .. }), "{error}");
    }

    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn an_rsa_key_is_generated_where_one_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = (directory.path().join("a"), directory.path().join("b"));
        let key = SigningKey::load_or_generate_rsa(&private, &public).unwrap();
        assert_eq!(key.verifying_key().algorithm(), Algorithm::Rs256);
        assert_eq!(load(&private, &public).unwrap().verifying_key(), key.verifying_key());
    }

    #[test]
    fn processes_that_start_at_once_share_one_generated_pair() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("config/private.pem");
        let public = directory.path().join("config/public.pem");
        let ids: Vec<String> = thread::scope(|scope| {
            let load = || {
                let key = SigningKey::load_or_generate(&private, &public).unwrap();
                key.verifying_key().key_id().to_owned()
            };
            let started: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));

        let names = fs::read_dir(directory.path().join("config")).unwrap();
        assert_eq!(names.count(), 2, "no draft stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
