//! A successor, sealed under the token that it replaces: who presents that token once more within
//! the leeway gets the same successor, from a store that knows neither.

use std::{fmt, time::SystemTime};

use ring::hkdf;
use zeroize::Zeroizing;

use super::{FamilyId, RefreshToken};

const BYTES: usize = 64;

/// A sealed refresh token. Without the token under which it was sealed it is noise.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealed {
    /// The generation of the token under which it was sealed.
    pub generation: u32,
    /// 64 bytes.
    pub bytes: Box<[u8]>,
    /// Until when it may be unsealed.
    pub until: SystemTime,
}

impl Sealed {
    /// A sealed token as a store reads it back.
    #[must_use]
    pub fn new(generation: u32, bytes: impl Into<Box<[u8]>>, until: SystemTime) -> Self {
        Self { generation, bytes: bytes.into(), until }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Seals a successor under the token of this generation that it replaces.
pub(super) fn seal(
    successor: &RefreshToken,
    parent: &RefreshToken,
    family: &FamilyId,
    generation: u32,
) -> Option<Box<[u8]>> {
    let mut bytes = successor.to_bytes();
    apply(&mut bytes, parent, family, generation)?;
    Some((*bytes).into())
}

/// The successor, for who presents the token under which it was sealed.
pub(super) fn unseal(
    sealed: &Sealed,
    parent: &RefreshToken,
    family: &FamilyId,
) -> Option<RefreshToken> {
    let mut bytes: Zeroizing<[u8; BYTES]> = Zeroizing::new((*sealed.bytes).try_into().ok()?);
    apply(&mut bytes, parent, family, sealed.generation)?;
    Some(RefreshToken::from_bytes(&bytes))
}

/// XOR with HKDF-SHA-256 (RFC 5869) of the parent; salted, so that no two are alike. The key is used
/// for one successor only, which is random itself.
fn apply(
    bytes: &mut [u8; BYTES],
    parent: &RefreshToken,
    family: &FamilyId,
    generation: u32,
) -> Option<()> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            BYTES
        }
    }
    let salt = format!("{}:{generation}", family.as_str());
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes());
    let key = salt.extract(&*parent.to_bytes());
    let mut stream = Zeroizing::new([0; BYTES]);
    key.expand(&[b"tower-warden successor"], Length).ok()?.fill(&mut *stream).ok()?;
    bytes.iter_mut().zip(stream.iter()).for_each(|(byte, mask)| *byte ^= mask);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn only_the_parent_in_its_family_unseals() {
        let [parent, successor, other] = [(); 3].map(|()| RefreshToken::random().unwrap());
        let family = FamilyId::random();
        let bytes = seal(&successor, &parent, &family, 3).unwrap();
        let open = |sealed: &Sealed, parent: &RefreshToken, family: &FamilyId| {
            unseal(sealed, parent, family).is_some_and(|token| token.hash() == successor.hash())
        };
        let sealed = Sealed::new(3, bytes.clone(), UNIX_EPOCH);
        assert!(open(&sealed, &parent, &family));
        assert!(!open(&sealed, &other, &family));
        assert!(!open(&sealed, &parent, &FamilyId::random()));
        assert!(!open(&Sealed::new(4, bytes, UNIX_EPOCH), &parent, &family));
        assert!(unseal(&Sealed::new(3, [0; 5], UNIX_EPOCH), &parent, &family).is_none());
    }
}
