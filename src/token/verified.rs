//! Tokens that were verified, remembered: a client presents the same one again and again, and a
//! signature costs a hundred times what it costs to recognize it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
};

use foldhash::quality::RandomState;
use quick_cache::{
    Equivalent, UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};
use zeroize::Zeroizing;

use crate::Identity;

/// A bounded number of genuine tokens and whom they identify. Whether they are expired is not
/// known here.
///
/// What is known is that of one set of keys and rules. When others take their place, all of it is
/// forgotten, and so is what was being verified meanwhile ([`age`](Self::age)).
pub(super) struct VerifiedTokens {
    known: Cache<Token, (u64, Identity), UnitWeighter, RandomState>,
    age: AtomicU64,
}

/// The whole text of a token, so that one that resembles another is not taken for it.
#[derive(PartialEq, Eq)]
struct Token(Zeroizing<Box<[u8]>>);

/// A token that is looked up: in the place of its end, and then compared in whole.
///
/// The end is the signature's, which tells genuine tokens apart as well as all of their text does, and
/// only they are kept: who has no key can't fill one place with many. To be compared at all, a token
/// must end as one that is kept does, which says of 384 bits that its sender has them already; so how
/// long the comparison takes tells nothing that could be guessed from.
struct Presented<'a>(&'a [u8]);

/// Some 384 bits of a signature in base64url.
const END: usize = 64;

impl VerifiedTokens {
    /// Room for so many; with none, nothing is remembered.
    pub(super) fn new(capacity: usize) -> Self {
        // The hash has a random key: nobody can choose tokens that meet in one place.
        let known = Cache::with(
            capacity,
            capacity as u64,
            UnitWeighter,
            RandomState::default(),
            DefaultLifecycle::default(),
        );
        Self { known, age: AtomicU64::new(0) }
    }

    /// Another one of the same size, that knows nothing.
    pub(super) fn empty(&self) -> Self {
        Self::new(usize::try_from(self.known.capacity()).unwrap_or(usize::MAX))
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Identity> {
        let (age, identity) = self.known.get(&Presented(token))?;
        (age == self.age()).then_some(identity)
    }

    /// To be asked before the keys are looked at that verify a token.
    pub(super) fn age(&self) -> u64 {
        self.age.load(Acquire)
    }

    /// Remembers a token that was verified by the keys of this age.
    pub(super) fn insert(&self, age: u64, token: &[u8], identity: Identity) {
        self.known.insert(Token(Zeroizing::new(token.into())), (age, identity));
    }

    /// To be called after other keys have taken their place.
    pub(super) fn forget(&self) {
        self.age.fetch_add(1, AcqRel);
        self.known.clear();
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens").field("len", &self.known.len()).finish_non_exhaustive()
    }
}

impl Equivalent<Token> for Presented<'_> {
    fn equivalent(&self, known: &Token) -> bool {
        *self.0 == **known.0
    }
}

impl Hash for Presented<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.last_chunk::<END>().map_or(self.0, |end| end));
    }
}

/// As it is looked up.
impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Presented(&self.0).hash(state);
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
            tokens.insert(0, n.to_string().as_bytes(), identity.clone());
        }
        let found = (0..100).filter(|n| tokens.get(n.to_string().as_bytes()).is_some()).count();
        assert!((1..=8).contains(&found), "{found}");
        assert_eq!(tokens.get(b"100"), None);
        assert!(!format!("{tokens:?}").contains("99"));
    }

    #[test]
    fn tokens_that_begin_or_end_alike_are_told_apart() {
        let tokens = VerifiedTokens::new(100);
        let (long, longer) = ("x".repeat(END - 1), "x".repeat(END));
        let texts = ["a", "b", "", &long, &longer, &format!("a{longer}"), &format!("b{longer}")];
        for text in texts {
            tokens.insert(0, text.as_bytes(), Identity::new(UserId::from(text), Role::VIEWER));
        }
        for text in texts {
            let found = tokens.get(text.as_bytes());
            assert_eq!(found.unwrap().user_id().as_str(), text);
        }
        for other in [format!("c{longer}"), format!("{longer}a"), "x".to_owned()] {
            assert_eq!(tokens.get(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let tokens = VerifiedTokens::new(0);
        tokens.insert(0, b"a", Identity::new(UserId::from("42"), Role::VIEWER));
        assert_eq!(tokens.get(b"a"), None);
    }

    #[test]
    fn what_was_verified_by_other_keys_is_forgotten() {
        let identity = Identity::new(UserId::from("42"), Role::VIEWER);
        let tokens = VerifiedTokens::new(8);
        let before = tokens.age();
        tokens.insert(before, b"known", identity.clone());
        tokens.forget();
        tokens.insert(before, b"late", identity.clone());
        assert_eq!((tokens.get(b"known"), tokens.get(b"late")), (None, None));
        tokens.insert(tokens.age(), b"late", identity);
        assert!(tokens.get(b"late").is_some());
        assert!(tokens.empty().get(b"late").is_none());
    }
}
