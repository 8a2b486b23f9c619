//! Recovery codes: what lets one in who has lost the authenticator, once each.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{StoreError, TokenHash, UserId};

/// Lower case, without what is easily read as something else; 32 of them, so 5 bits each.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 50 bits.
const LENGTH: usize = 10;

/// A code to be shown to its owner once: `xxxxx-xxxxx`. Wiped when dropped.
///
/// ```
/// use tower_warden::second_factor::RecoveryCode;
/// /// What a page shows after [`TotpService::confirm`](tower_warden::second_factor::TotpService::confirm).
/// fn shown(codes: &[RecoveryCode]) -> String {
///     codes.iter().map(RecoveryCode::expose).collect::<Vec<_>>().join("\n")
/// }
/// ```
#[derive(Clone)]
pub struct RecoveryCode(Zeroizing<String>);

impl RecoveryCode {
    pub(super) fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| StoreError::internal("the system gave no random bytes"))?;
        let mut text = Zeroizing::new(String::with_capacity(LENGTH + 1));
        for (place, byte) in bytes.iter().enumerate() {
            if place == LENGTH / 2 {
                text.push('-');
            }
            text.push(char::from(LETTERS[usize::from(byte % 32)]));
        }
        Ok(Self(text))
    }

    /// The code itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub(super) fn hash(&self, user: &UserId) -> TokenHash {
        let bare: Zeroizing<String> = Zeroizing::new(self.0.replace('-', ""));
        hash(&bare, user)
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

/// The hash of what somebody typed, without spaces: in any case, with or without the hyphen.
pub(super) fn hash_of(text: &str, user: &UserId) -> Option<TokenHash> {
    let (half, mut bare) = (LENGTH / 2, Zeroizing::new(text.to_ascii_lowercase()));
    if bare.len() == LENGTH + 1 && bare.as_bytes()[half] == b'-' {
        bare.remove(half);
    }
    let plain = bare.len() == LENGTH && bare.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| hash(&bare, user))
}

/// With the user in it, so that a table of hashes is of use against one user only.
fn hash(bare: &str, user: &UserId) -> TokenHash {
    TokenHash::of(&Zeroizing::new(format!("{user}:{bare}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let ada = UserId::from("ada");
        let code = RecoveryCode::random().unwrap();
        let text = code.expose();
        assert_eq!((text.len(), text.as_bytes()[5]), (11, b'-'));
        assert_ne!(text, RecoveryCode::random().unwrap().expose());
        for typed in [text.to_owned(), text.to_uppercase(), text.replace('-', "")] {
            assert_eq!(hash_of(&typed, &ada), Some(code.hash(&ada)), "{typed}");
        }
        assert_ne!(hash_of(text, &UserId::from("eve")), Some(code.hash(&ada)));
        for wrong in ["", "abcde", "abcde-fghi", "abcd-efghij", "abcde--fghij", "äbcde-fghij"] {
            assert_eq!(hash_of(wrong, &ada), None, "{wrong}");
        }
        assert!(!format!("{code:?}").contains(text));
    }
}
