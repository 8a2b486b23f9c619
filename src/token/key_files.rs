//! A key pair kept in two files, made where there is none.

use std::{fs, io, path::Path, thread, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{KeyFileError, SigningKey, VerifyingKey, backend};
use crate::new_file::Draft;

impl SigningKey {
    /// Reads a pair of PEM files; where neither is there, first generates an RSA key of 2048 bits
    /// (feature `aws-lc-rs`) into them. The private one is readable by its owner only.
    ///
    /// Any number of processes may start at once: one of them makes the pair, and all read it.
    ///
    /// # Errors
    /// [`KeyFileError`] names the file: one that can't be read or written or holds no usable key,
    /// or the one that is missing while the other is there; or says that the two are no pair.
    pub fn load_or_generate(
        private: impl AsRef<Path>,
        public: impl AsRef<Path>,
    ) -> Result<Self, KeyFileError> {
        let (private, public) = (private.as_ref(), public.as_ref());
        if !exists(private)? && !exists(public)? {
            generate(private, public)?;
        }
        wait_for_both(private, public)?;
        load(private, public)
    }
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
fn generate(private: &Path, public: &Path) -> Result<(), KeyFileError> {
    let key = backend::generate_rsa_2048().ok_or(KeyFileError::CannotGenerate)?;
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
    use crate::token::KeyError;

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

    #[cfg(not(feature = "aws-lc-rs"))]
    #[test]
    fn ring_generates_no_pair_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = (directory.path().join("a"), directory.path().join("b"));
        let error = SigningKey::load_or_generate(private, public).unwrap_err();
        assert!(matches!(error, KeyFileError::CannotGenerate));
    }

    #[cfg(feature = "aws-lc-rs")]
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
