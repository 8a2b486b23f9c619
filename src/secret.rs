//! Secrets that are random text, and what is kept of them.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::StoreError;

/// A secret of so many random bytes, as twice as many lower-case hex digits. Stores see its
/// [`TokenHash`] only; the text is wiped when dropped.
///
/// ```
/// use tower_warden::OpaqueToken;
/// let invitation = OpaqueToken::<16>::random()?; // mail this …
/// let stored = invitation.hash(); // … keep this
/// let presented = OpaqueToken::<16>::parse(invitation.expose()).ok_or("no such token")?;
/// assert_eq!(presented.hash(), stored);
/// assert_eq!(format!("{invitation:?}"), "OpaqueToken(…)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct OpaqueToken<const BYTES: usize>(Zeroizing<String>);

/// The SHA-256 of a secret's text: what is stored of it.
///
/// Compared as any value is: how much of it matches tells nothing of the secret, which can't be
/// guessed piece by piece from its hash.
///
/// ```
/// use tower_warden::TokenHash;
/// let row: [u8; 32] = *TokenHash::of("a secret").as_bytes();
/// assert_eq!(TokenHash::from(row), TokenHash::of("a secret"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl<const BYTES: usize> OpaqueToken<BYTES> {
    /// A new one.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| StoreError::internal("the system gave no random bytes"))?;
        Ok(Self::from_bytes(&bytes))
    }

    pub(crate) fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(2 * BYTES));
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Self(text)
    }

    /// The random bytes that the text spells.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; BYTES]> {
        let nibble = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
        let mut bytes = Zeroizing::new([0; BYTES]);
        for (byte, digits) in bytes.iter_mut().zip(self.0.as_bytes().chunks_exact(2)) {
            *byte = nibble(digits[0]) << 4 | nibble(digits[1]);
        }
        bytes
    }

    /// Reads what a client presents: exactly so many lower-case hex digits, or nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 2 * BYTES && text.bytes().all(hex))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself, to be sent to its owner and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a store keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl<const BYTES: usize> fmt::Debug for OpaqueToken<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueToken(…)")
    }
}

impl TokenHash {
    /// The hash of a secret's text.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The 32 bytes, as stores keep them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// As a store reads it back.
impl From<[u8; 32]> for TokenHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unlike_and_read_back() {
        let (a, b) = (OpaqueToken::<64>::random().unwrap(), OpaqueToken::<64>::random().unwrap());
        assert_eq!(a.expose().len(), 128);
        assert_ne!(a.expose(), b.expose());
        assert_eq!(OpaqueToken::<64>::parse(a.expose()).unwrap().hash(), a.hash());
        assert_eq!(OpaqueToken::from_bytes(&a.to_bytes()).expose(), a.expose());
        assert_ne!(a.hash(), b.hash());
        assert!(!format!("{a:?}{:?}", a.hash()).contains(&a.expose()[..8]));
    }

    #[test]
    fn other_text_is_no_token() {
        for text in ["", "0", "gg", "0F", "0 ", "000", "\u{660}"] {
            assert!(OpaqueToken::<1>::parse(text).is_none(), "{text:?}");
        }
    }
}
