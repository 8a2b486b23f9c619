//! What keys look like: a prefix, 34 random letters and digits, and 6 more that check these.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{StoreError, TokenHash};

/// In the order of their values, as checksums write them.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62 to the 34th is more than 200 bits.
const RANDOM: usize = 34;
const CHECKSUM: usize = 6;
/// How much of a key is shown in lists: enough to tell one's keys apart, too little to guess the rest.
const SHOWN: usize = 8;

/// A key's text, to be shown to its owner once. Wiped when dropped.
///
/// ```
/// use tower_warden::{ApiKeyService, api_key::KeyRequest, store::memory::MemoryStore};
/// # use tower_warden::{Identity, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = Identity::from(&store.create(ada).await?);
/// let keys = ApiKeyService::new(store);
/// let (key, secret) = keys.create(&ada, KeyRequest::new("backup")).await?;
/// assert_eq!(secret.expose().len(), 44);
/// assert_eq!(secret.prefix(), key.prefix); // what lists show
/// assert_eq!(format!("{secret:?}"), "ApiKeySecret(…)"); // no log learns it
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ApiKeySecret {
    text: Zeroizing<String>,
    prefix: usize,
}

impl ApiKeySecret {
    /// A new one that begins so.
    pub(super) fn random(prefix: &str) -> Result<Self, StoreError> {
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + RANDOM + CHECKSUM));
        text.push_str(prefix);
        while text.len() < prefix.len() + RANDOM {
            let mut bytes = Zeroizing::new([0; RANDOM]);
            SystemRandom::new()
                .fill(&mut *bytes)
                .map_err(|_| StoreError::internal("the system gave no random bytes"))?;
            // 248 is the last multiple of 62: beyond it some letters would be likelier than others.
            let fair = bytes.iter().filter(|byte| **byte < 248);
            let missing = prefix.len() + RANDOM - text.len();
            text.extend(fair.take(missing).map(|byte| digit(u32::from(*byte))));
        }
        let check = checksum(text[prefix.len()..].as_bytes());
        text.extend(check.iter().copied().map(char::from));
        Ok(Self { text, prefix: prefix.len() })
    }

    /// The key itself, to be sent to its owner and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What a store keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.text)
    }

    /// The beginning of it, by which its owner knows it in a list.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..self.prefix + SHOWN]
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

/// The hash of what a client presents, if it has the form of a key.
pub(super) fn hash_of(presented: &[u8], prefix: &str) -> Result<TokenHash, &'static str> {
    let rest = presented.strip_prefix(prefix.as_bytes()).ok_or("prefix")?;
    if rest.len() != RANDOM + CHECKSUM || !rest.iter().all(u8::is_ascii_alphanumeric) {
        return Err("form");
    }
    let (random, check) = rest.split_at(RANDOM);
    // It is no secret: who can compute it may know how much of it is right.
    if checksum(random) != *check {
        return Err("checksum");
    }
    std::str::from_utf8(presented).map(TokenHash::of).map_err(|_| "form")
}

/// The CRC-32 (ISO-HDLC, as in zip and PNG), in base 62 with leading zeros, as the keys of GitHub
/// have it.
fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut value = !crc;
    let mut digits = [0; CHECKSUM];
    for place in digits.iter_mut().rev() {
        *place = DIGITS[(value % 62) as usize];
        value /= 62;
    }
    digits
}

fn digit(value: u32) -> char {
    char::from(DIGITS[(value % 62) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unlike_have_the_form_and_read_back() {
        let (a, b) = (ApiKeySecret::random("wdn_").unwrap(), ApiKeySecret::random("wdn_").unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_eq!((a.expose().len(), a.prefix().len()), (44, 12));
        assert!(a.expose().starts_with(a.prefix()));
        assert_eq!(hash_of(a.expose().as_bytes(), "wdn_"), Ok(a.hash()));
        assert!(!format!("{a:?}").contains(a.prefix()));
    }

    #[test]
    fn checksum_is_that_of_the_standard() {
        // The check value of the catalogue of parametrised CRC algorithms: 0xCBF43926.
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        assert_eq!(&checksum(b""), b"000000");
    }

    #[test]
    fn one_wrong_letter_is_seen_and_other_forms_are_none() {
        let key = ApiKeySecret::random("wdn_").unwrap();
        let text = key.expose().as_bytes();
        for place in 0..text.len() {
            for other in [b'0', b'z', b'_', b'.', 0xff] {
                let mut changed = text.to_vec();
                changed[place] = other;
                assert_eq!(hash_of(&changed, "wdn_").is_ok(), other == text[place], "{place}");
            }
        }
        for wrong in [&text[..43], &text[1..], b"", b"wdn_", b"a.b.c"] {
            assert!(hash_of(wrong, "wdn_").is_err());
        }
        assert_eq!(hash_of(text, "other_"), Err("prefix"));
    }
}
