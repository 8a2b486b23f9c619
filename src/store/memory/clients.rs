//! Whom a limiter counts, in two words: what stands in the table instead of names and addresses.

use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::limit::{Key, LimiterName};

/// A limiter and whom it counts.
///
/// An address stands as it is, beside 61 bits of a hash of the limiter's name, of which there are few.
/// Text stands, with that name, as its SipHash-1-3 of 125 bits under a key that nobody knows: that two
/// are the same happens as often as somebody guesses such a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client(pub(super) [u64; 2]);

impl Client {
    /// Two words, without the length that an array's own hash has.
    #[inline]
    pub(super) fn hash(self, hasher: &impl BuildHasher) -> u64 {
        let [first, second] = self.0;
        hasher.hash_one((first, second))
    }
}

/// Knows the keys, so it has no `Debug`.
pub(super) struct Clients {
    names: foldhash::fast::RandomState,
    texts: SipHasher13,
}

impl Default for Clients {
    fn default() -> Self {
        // The standard library's state is where it hands out random words.
        let random = RandomState::new();
        Self {
            names: foldhash::fast::RandomState::default(),
            texts: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
        }
    }
}

/// In the lowest bits of the first word, so that no kind of key is taken for another.
const KIND: u64 = 7;

impl Clients {
    /// Whom this limiter counts by this key.
    #[inline]
    pub(super) fn client(&self, limiter: LimiterName, key: &Key) -> Client {
        let name = || self.names.hash_one(limiter.as_str());
        let (kind, [first, second]) = match key {
            Key::ClientIp(ip) => {
                let (kind, bits) = ip.bits();
                (u64::from(kind), [name(), bits])
            }
            Key::Number(number) => (3, [name(), *number]),
            Key::User(id) => (4, self.text(limiter.as_str(), id.as_str())),
            Key::Text(text) => (5, self.text(limiter.as_str(), text)),
        };
        Client([first & !KIND | kind, second])
    }

    fn text(&self, limiter: &str, text: &str) -> [u64; 2] {
        let mut hasher = self.texts;
        // No name of a limiter holds a space.
        for part in [limiter, " ", text] {
            hasher.write(part.as_bytes());
        }
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}
