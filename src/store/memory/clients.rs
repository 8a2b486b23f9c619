//! Whom a limiter counts, in a word and a half: what stands in the table instead of names and addresses.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::LazyLock,
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use siphasher::sip::SipHasher13;

use crate::limit::{Key, LimiterName};

/// A limiter and whom it counts.
///
/// An address and a number stand as they are, beside the number of the limiter's name. Text stands as its
/// SipHash-1-3 under a key that nobody knows: that two of a limiter are the same happens as often as
/// somebody guesses a number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The limiter, and the kind of key. Never 0.
    pub(super) whose: u16,
    pub(super) key: u64,
}

/// Knows the keys of the hashes, so it has no `Debug`.
pub(super) struct Clients {
    /// Of the kind that is mixed twice: the other leaves clients in a row beside one another, under one
    /// seed in a hundred or so, and a part of the table would fill up before the rest.
    places: SeedableRandomState,
    texts: SipHasher13,
}

impl Default for Clients {
    fn default() -> Self {
        // The standard library's state is where it hands out random words.
        static SHARED: LazyLock<SharedSeed> =
            LazyLock::new(|| SharedSeed::from_u64(RandomState::new().hash_one(0)));
        let random = RandomState::new();
        Self {
            places: SeedableRandomState::with_seed(random.hash_one(2), &SHARED),
            texts: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
        }
    }
}

/// Bits of [`Client::whose`] that tell one kind of key from another.
const KIND_BITS: u32 = 3;
/// That of limiters whose number is too great to stand here, of which few programs have any: their
/// names are hashed with the keys.
const HASHED: u16 = u16::MAX;
/// Names with smaller numbers than this stand as their number.
const NUMBERS: u32 = (HASHED >> KIND_BITS) as u32 - 1;

impl Clients {
    /// Whom this limiter counts by this key.
    #[inline(always)]
    pub(super) fn client(&self, limiter: LimiterName, key: &Key) -> Client {
        let (kind, key) = match key {
            Key::ClientIp(ip) => ip.bits(),
            key => self.kind_and_bits(key),
        };
        let number = limiter.number();
        if number >= NUMBERS {
            return self.client_of_many(limiter, kind, key);
        }
        // The number 0 is nobody's, as a line's note may be.
        Client { whose: (number as u16 + 1) << KIND_BITS | u16::from(kind), key }
    }

    #[inline(never)]
    fn kind_and_bits(&self, key: &Key) -> (u8, u64) {
        match key {
            Key::ClientIp(ip) => ip.bits(),
            Key::Number(number) => (3, *number),
            Key::User(id) => (4, self.hashed(&[id.as_str().as_bytes()])),
            Key::Text(text) => (5, self.hashed(&[text.as_bytes()])),
        }
    }

    #[cold]
    #[inline(never)]
    fn client_of_many(&self, limiter: LimiterName, kind: u8, key: u64) -> Client {
        let (kind, key) = ([kind], key.to_le_bytes());
        let key = self.hashed(&[limiter.as_str().as_bytes(), &kind, &key]);
        Client { whose: HASHED, key }
    }

    /// Where it is looked for. Whoever chooses addresses can't choose that.
    #[inline]
    pub(super) fn place(&self, client: Client) -> u64 {
        self.places.hash_one(client.key ^ u64::from(client.whose) << 48)
    }

    fn hashed(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = self.texts;
        for part in parts {
            hasher.write(part);
            // No name of a limiter has it in it.
            hasher.write_u8(b' ');
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_in_a_row_are_spread_under_each_seed() {
        const PARTS: usize = 16;
        for seed in 1..=100 {
            let shared = Box::leak(Box::new(SharedSeed::from_u64(seed)));
            let places = SeedableRandomState::with_seed(seed, shared);
            let clients = Clients { places, ..Clients::default() };
            // Users by number, addresses of a network, networks of a larger one.
            for shift in [0, 8, 16, 32, 40] {
                let mut counts = [[0_u32; PARTS]; 2];
                for key in 0..4_000 {
                    let place = clients.place(Client { whose: 11, key: key << shift });
                    // Its segment, and where it is in there.
                    counts[0][(place >> 60) as usize] += 1;
                    counts[1][(place as u32 >> 28) as usize] += 1;
                }
                // 250 each, and six times the standard deviation.
                let fair = |counts: &[u32; PARTS]| counts.iter().all(|n| (158..=342).contains(n));
                assert!(counts.iter().all(fair), "{seed} {shift}: {counts:?}");
            }
        }
    }

    #[test]
    fn limiters_and_kinds_of_keys_are_told_apart_however_many_names_there_are() {
        let clients = Clients::default();
        let names = (0..9_000).map(|i| LimiterName::new(&format!("clients-test-{i}")).unwrap());
        let keys =
            [Key::from(7_u64), Key::from("7"), Key::from(std::net::IpAddr::from([0, 0, 0, 7]))];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            for key in &keys {
                let Client { whose, key } = clients.client(name, key);
                assert!(whose > 0 && seen.insert((whose, key)), "{name}");
            }
        }
    }
}
