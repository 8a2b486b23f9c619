//! Secrets that a server must read again are sealed: a copy of the database opens nothing.

use std::{fmt, fs, io, path::Path, path::PathBuf};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use crate::{
    StoreError, UserId,
    new_file::{Draft, warn_if_readable_by_others},
};

const KEY_LEN: usize = 32;
/// The first byte of what is sealed: how the rest is to be read.
const VERSION: u8 = 1;
/// Which key sealed it: the beginning of the key's hash.
const ID_LEN: usize = 4;
const HEAD_LEN: usize = 1 + ID_LEN + NONCE_LEN;

/// A secret as stores keep it: encrypted and authenticated (ChaCha20-Poly1305), and bound to its
/// user, so that it opens for nobody else.
///
/// ```
/// use tower_warden::second_factor::SealedSecret;
/// // What a store reads and writes; a `TotpService` seals and opens it.
/// let read = SealedSecret::from(vec![7; 53]);
/// assert_eq!(read.as_bytes(), [7; 53]);
/// assert_eq!(format!("{read:?}"), "SealedSecret(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret(Box<[u8]>);

impl SealedSecret {
    /// The bytes that are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SealedSecret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret(…)")
    }
}

/// A key that seals: 32 random bytes. Wiped when dropped.
///
/// ```
/// use tower_warden::second_factor::SealingKey;
/// let key = SealingKey::from_hex(&"0f".repeat(32)).ok_or("64 hex digits")?; // from a secret manager
/// assert_eq!(format!("{key:?}"), "SealingKey(…)");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone)]
pub struct SealingKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    id: [u8; ID_LEN],
}

impl SealingKey {
    /// A new one.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| StoreError::internal("the system gave no random bytes"))?;
        Ok(Self::new(bytes))
    }

    /// Reads 64 hex digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if text.len() != 2 * KEY_LEN || !text.is_ascii() {
            return None;
        }
        for (byte, place) in bytes.iter_mut().zip((0..).step_by(2)) {
            let digit = |at: usize| char::from(text.as_bytes()[at]).to_digit(16);
            *byte = u8::try_from(digit(place)? * 16 + digit(place + 1)?).ok()?;
        }
        Some(Self::new(bytes))
    }

    fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let hash = digest::digest(&digest::SHA256, &*bytes);
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&hash.as_ref()[..ID_LEN]);
        Self { bytes, id }
    }

    fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LEN + 1));
        for byte in self.bytes.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        text
    }

    fn cipher(&self) -> Result<LessSafeKey, StoreError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*self.bytes);
        key.map(LessSafeKey::new).map_err(|_| StoreError::internal("a key that is no key"))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// One key that seals, and others that still open. To change the key, put a new one in front; what an
/// older one sealed is sealed anew when it is next used.
///
/// ```
/// use tower_warden::second_factor::{SealingKey, SealingKeys};
/// // A key is changed: the new one seals, the old one still opens.
/// let keys = SealingKeys::new(SealingKey::random()?).with_opening(SealingKey::random()?);
/// # Ok::<(), tower_warden::StoreError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SealingKeys(Vec<SealingKey>);

/// Why there are no keys to seal with.
///
/// ```
/// use tower_warden::second_factor::{SealingKeyError, SealingKeys};
/// # let directory = std::env::temp_dir().join(format!("tower-warden-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("secret.key");
/// std::fs::write(&path, "not 64 hex digits")?;
/// let refused = SealingKeys::load_or_generate(&path);
/// assert!(matches!(refused, Err(SealingKeyError::Invalid { .. })));
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingKeyError {
    /// The file can't be read or written.
    #[error("{}: can't be read or written", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: holds something else than keys of 64 hex digits, one a line", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error(transparent)]
    Random(#[from] StoreError),
}

impl SealingKeys {
    /// One key, which seals and opens.
    #[must_use]
    pub fn new(key: SealingKey) -> Self {
        Self(vec![key])
    }

    /// One more key, which opens what it sealed before.
    #[must_use]
    pub fn with_opening(mut self, key: SealingKey) -> Self {
        self.0.push(key);
        self
    }

    /// Reads a file of keys, one a line in 64 hex digits, the first of which seals. Where there is no
    /// file, it is made, readable by its owner only, with one new key in it. Any number of processes
    /// may start at once: one of them makes the file, and all read it. One that others can read is read
    /// all the same, and that is logged as a warning.
    ///
    /// # Errors
    /// See [`SealingKeyError`].
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, SealingKeyError> {
        let path = path.as_ref();
        let at = |source| SealingKeyError::Io { path: path.into(), source };
        if !path.try_exists().map_err(at)? {
            let mut line = SealingKey::random()?.to_hex();
            line.push('\n');
            if Draft::write(path, &line, 0o600).map_err(at)?.publish().map_err(at)? {
                tracing::info!(path = %path.display(), "key to seal secrets generated");
            }
        }
        let text = Zeroizing::new(fs::read(path).map_err(at)?);
        let invalid = || SealingKeyError::Invalid { path: path.into() };
        let text = std::str::from_utf8(&text).map_err(|_| invalid())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<_>> = lines.map(SealingKey::from_hex).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(invalid)?;
        warn_if_readable_by_others(path);
        Ok(Self(keys))
    }

    /// Seals a secret of this user.
    pub(super) fn seal(&self, secret: &[u8], user: &UserId) -> Result<SealedSecret, StoreError> {
        let key = self.0.first().ok_or_else(|| StoreError::internal("no key to seal with"))?;
        let mut nonce = [0; NONCE_LEN];
        let failed = |_| StoreError::internal("a secret could not be sealed");
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut text = Zeroizing::new(secret.to_vec());
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        let tag = key.cipher()?.seal_in_place_separate_tag(nonce_of, bound_to(user), &mut text);
        let sealed =
            [&[VERSION], &key.id[..], &nonce, &text, tag.map_err(failed)?.as_ref()].concat();
        Ok(sealed.into())
    }

    /// Opens what was sealed for this user, and says whether it should be sealed anew.
    pub(super) fn open(
        &self,
        sealed: &SealedSecret,
        user: &UserId,
    ) -> Result<(Zeroizing<Vec<u8>>, bool), StoreError> {
        let unknown = || StoreError::internal("a secret that no key opens");
        let (head, text) = sealed.0.split_at_checked(HEAD_LEN).ok_or_else(unknown)?;
        let (version, id, nonce) = (head[0], &head[1..=ID_LEN], &head[1 + ID_LEN..]);
        let place = self.0.iter().position(|key| version == VERSION && key.id == *id);
        let place = place.ok_or_else(unknown)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unknown())?;
        let mut text = Zeroizing::new(text.to_vec());
        let cipher = self.0[place].cipher()?;
        let opened =
            cipher.open_in_place(nonce, bound_to(user), &mut text).map_err(|_| unknown())?.len();
        text.truncate(opened);
        Ok((text, place > 0))
    }
}

/// What is sealed for one user, and for this purpose, opens for no other.
fn bound_to(user: &UserId) -> Aad<Vec<u8>> {
    Aad::from([b"tower-warden second factor\0", user.as_str().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> SealingKeys {
        SealingKeys::new(SealingKey::random().unwrap())
    }

    #[test]
    fn sealed_secret_opens_for_its_user_and_its_key_only() {
        let (keys, ada) = (keys(), UserId::from("ada"));
        let sealed = keys.seal(b"a secret", &ada).unwrap();
        let (opened, anew) = keys.open(&sealed, &ada).unwrap();
        assert_eq!((opened.as_slice(), anew), (&b"a secret"[..], false));
        assert_ne!(keys.seal(b"a secret", &ada).unwrap(), sealed);

        assert!(keys.open(&sealed, &UserId::from("eve")).is_err());
        assert!(super::tests::keys().open(&sealed, &ada).is_err());
        for place in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[place] ^= 1;
            assert!(keys.open(&changed, &ada).is_err(), "{place}");
            assert!(keys.open(&SealedSecret(sealed.0[..place].into()), &ada).is_err(), "{place}");
        }
        assert!(!format!("{sealed:?}{keys:?}").contains(&keys.0[0].to_hex()[..8]));
    }

    #[test]
    fn key_can_be_changed() {
        let (old, ada) = (SealingKey::random().unwrap(), UserId::from("ada"));
        let sealed = SealingKeys::new(old.clone()).seal(b"a secret", &ada).unwrap();
        let both = keys().with_opening(old);
        let (opened, anew) = both.open(&sealed, &ada).unwrap();
        assert_eq!((opened.as_slice(), anew), (&b"a secret"[..], true));
        let sealed = both.seal(&opened, &ada).unwrap();
        assert!(!both.open(&sealed, &ada).unwrap().1);
    }

    #[test]
    fn file_is_made_once_for_its_owner_only_and_read_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config/secret.key");
        let ada = UserId::from("ada");
        let sealed = std::thread::scope(|scope| {
            let load = || SealingKeys::load_or_generate(&path).unwrap().seal(b"x", &ada).unwrap();
            let started: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let keys = SealingKeys::load_or_generate(&path).unwrap();
        assert!(sealed.iter().all(|sealed| keys.open(sealed, &ada).is_ok()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.trim_end().len() == 64 && SealingKey::from_hex(text.trim_end()).is_some());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }

        // A new key in front: the old one opens.
        fs::write(&path, format!("{}\n{text}", "ab".repeat(32))).unwrap();
        let changed = SealingKeys::load_or_generate(&path).unwrap();
        assert!(changed.open(&sealed[0], &ada).unwrap().1);
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let long = "0".repeat(65);
        for text in ["", "\n", "x", &long, &"g".repeat(64), &format!("{}\nx", "0".repeat(64))] {
            fs::write(&path, text).unwrap();
            let error = SealingKeys::load_or_generate(&path).unwrap_err();
            assert!(matches!(error, SealingKeyError::Invalid { .. }), "{text:?}: {error}");
        }
        let error = SealingKeys::load_or_generate(directory.path()).unwrap_err();
        assert!(matches!(error, SealingKeyError::Io { .. }), "{error}");
    }
}
