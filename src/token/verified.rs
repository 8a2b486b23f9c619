//! Tokens that were verified, remembered: a client presents the same one again and again, and a
//! signature costs a hundred times what it costs to recognize it.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
};

use foldhash::quality::RandomState;
use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};
use zeroize::Zeroizing;

use crate::Identity;

/// A bounded number of genuine tokens and whom they identify. Whether they are expired is not
/// known here.
pub(super) struct VerifiedTokens(Cache<Token, Identity, UnitWeighter, RandomState>);

/// The whole text of a token, so that one that resembles another is not taken for it.
#[derive(PartialEq, Eq)]
struct Token(Zeroizing<Box<[u8]>>);

impl VerifiedTokens {
    /// Room for so many; with none, nothing is remembered.
    pub(super) fn new(capacity: usize) -> Self {
        // The hash has a random key: nobody can choose tokens that meet in one place.
        Self(Cache::with(
            capacity,
            capacity as u64,
            UnitWeighter,
            RandomState::default(),
            DefaultLifecycle::default(),
        ))
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Identity> {
        self.0.get(token)
    }

    pub(super) fn insert(&self, token: &[u8], identity: Identity) {
        self.0.insert(Token(Zeroizing::new(token.into())), identity);
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens").field("len", &self.0.len()).finish_non_exhaustive()
    }
}

impl Borrow<[u8]> for Token {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// As its text hashes, by which it is looked up.
impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self.0).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, UserId};

    #[test]
    fn what_was_put_in_is_found_again_up_to_the_capacity() {
        let identity = Identity::new(UserId::from("42"), Role::VIEWER);
        let tokens = VerifiedTokens::new(8);
        for n in 0..100 {
            tokens.insert(n.to_string().as_bytes(), identity.clone());
        }
        let found = (0..100).filter(|n| tokens.get(n.to_string().as_bytes()).is_some()).count();
        assert!((1..=8).contains(&found), "{found}");
        assert_eq!(tokens.get(b"100"), None);
        assert!(!format!("{tokens:?}").contains("99"));
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let tokens = VerifiedTokens::new(0);
        tokens.insert(b"a", Identity::new(UserId::from("42"), Role::VIEWER));
        assert_eq!(tokens.get(b"a"), None);
    }
}
