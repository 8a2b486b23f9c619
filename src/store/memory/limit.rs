//! Limits counted in this process.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use indexmap::{Equivalent, IndexMap};
use smallvec::SmallVec;

use crate::{
    Answer, Quota, SharedClock, StoreError, SystemClock,
    limit::{Decision, Decisions, Hold, Key, Log, RESOLUTION, RateLimitStore, Take, Taken},
};

/// A [`RateLimitStore`] in this process: exact, and never out of reach.
///
/// Counts are lost at a restart, and two servers count apart; that is what
/// a shared store is for. Time is the clock's monotonic one.
///
/// Memory is bounded: at most so many clients are remembered (1,000,000 unless configured; a
/// client that made a few requests takes about 150 bytes). Those whose requests have all left the
/// window leave first, without a task that anybody has to start. Where nobody is idle, one that is
/// far from its limit makes room for a stranger; one that has reached its limit never does, so
/// that a flood of made-up clients doesn't free the flooder. Where all that were looked at have
/// reached theirs, the store says that it can't decide.
///
/// ```
/// use portcullis::{Quota, limit::{RateLimitStore, Take}, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis::StoreError> {
/// let store = MemoryRateLimitStore::new();
/// let quota = Quota::per_minute(1);
/// let take = Take { limiter: "ip", key: "203.0.113.9".into(), quota, cost: 1, hold: false };
/// assert!(store.take(std::slice::from_ref(&take)).await?[0].decision.allowed);
/// assert!(!store.take(&[take]).await?[0].decision.allowed);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryRateLimitStore {
    clock: SharedClock,
    resolution: u32,
    state: Arc<State>,
}

struct State {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    shard_capacity: usize,
}

#[derive(Default)]
struct Shard {
    slots: IndexMap<Client, Slot, RandomState>,
    /// Where the search for idle slots goes on.
    hand: usize,
}

#[derive(PartialEq, Eq)]
struct Client {
    limiter: &'static str,
    key: Key,
}

struct Slot {
    log: Log,
    /// By which it was last counted: tells when it is idle.
    quota: Quota,
}

/// Looked at for each new client, so that idle ones leave as fast as new ones come.
const SWEPT: usize = 2;
/// Looked at for one that may make room.
const SAMPLED: usize = 32;

impl MemoryRateLimitStore {
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: SystemClock::shared(),
            resolution: RESOLUTION,
            state: Arc::new(State::new(1_000_000)),
        }
    }

    /// The same on another clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// An empty store that remembers at most about so many clients.
    #[must_use]
    pub fn with_capacity(self, clients: usize) -> Self {
        Self { state: Arc::new(State::new(clients)), ..self }
    }

    /// The same with another resolution than [`RESOLUTION`]: limits up to it are exact, above it
    /// room comes back at most that part of a window late.
    #[must_use]
    pub fn with_resolution(self, resolution: u32) -> Self {
        Self { resolution: resolution.max(1), ..self }
    }

    /// How many clients are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX / 2)
    }

    fn take_one(&self, take: &Take) -> Result<Taken, StoreError> {
        let client = Lookup { limiter: take.limiter, key: &take.key };
        let mut shard = lock(&self.state.shards[self.state.shard_of(&client)]);
        // Read under the lock, so that each log sees time go forward.
        let now = self.now();
        let decision = shard.decide(now, &client, take);
        if !decision.allowed || take.cost == 0 {
            return Ok(Taken { decision, hold: None });
        }
        shard.make_room(now, &client, self.state.shard_capacity)?;
        Ok(shard.admit(now, take, self.resolution))
    }

    fn take_all(&self, takes: &[Take]) -> Result<Decisions, StoreError> {
        let lookups = takes.iter().map(|take| Lookup { limiter: take.limiter, key: &take.key });
        let places: SmallVec<[usize; 4]> =
            lookups.clone().map(|c| self.state.shard_of(&c)).collect();
        // Always in the same order, so that two requests never wait for one another.
        let mut order = places.clone();
        order.sort_unstable();
        order.dedup();
        let mut guards: SmallVec<[MutexGuard<'_, Shard>; 4]> =
            order.iter().map(|place| lock(&self.state.shards[*place])).collect();
        let at = |place: &usize| order.binary_search(place).unwrap_or_default();
        let now = self.now();

        let mut decisions = Decisions::new();
        for ((take, client), place) in takes.iter().zip(lookups.clone()).zip(&places) {
            let decision = guards[at(place)].decide(now, &client, take);
            decisions.push(Taken { decision, hold: None });
        }
        if decisions.iter().any(|taken| !taken.decision.allowed) {
            return Ok(decisions);
        }
        let counted = |take: &Take| take.cost > 0;
        for ((_, client), place) in
            takes.iter().zip(lookups).zip(&places).filter(|((take, _), _)| counted(take))
        {
            guards[at(place)].make_room(now, &client, self.state.shard_capacity)?;
        }
        for ((take, place), taken) in takes.iter().zip(&places).zip(&mut decisions) {
            if counted(take) {
                *taken = guards[at(place)].admit(now, take, self.resolution);
            }
        }
        Ok(decisions)
    }
}

impl Default for MemoryRateLimitStore {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimitStore for MemoryRateLimitStore {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        Answer::Ready(match takes {
            [take] => self.take_one(take).map(|taken| smallvec::smallvec![taken]),
            _ => self.take_all(takes),
        })
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let client = Lookup { limiter: hold.limiter, key: &hold.key };
        let mut shard = lock(&self.state.shards[self.state.shard_of(&client)]);
        let now = self.now();
        Answer::Ready(Ok(match shard.slots.get_mut(&client) {
            Some(slot) => {
                slot.log.settle(now, &hold.quota, hold.cost, self.resolution, hold.mark, keep);
                slot.log.decide(now, &hold.quota, 0)
            }
            None => Log::default().decide(now, &hold.quota, 0),
        }))
    }
}

impl fmt::Debug for MemoryRateLimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRateLimitStore").finish_non_exhaustive()
    }
}

impl State {
    fn new(capacity: usize) -> Self {
        let shards = (capacity / 1024).clamp(1, 64).next_power_of_two();
        Self {
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(shards).max(1),
        }
    }

    fn shard_of(&self, client: &Lookup<'_>) -> usize {
        (self.hasher.hash_one(client) >> 32) as usize & (self.shards.len() - 1)
    }
}

impl Shard {
    fn decide(&mut self, now: u64, client: &Lookup<'_>, take: &Take) -> Decision {
        match self.slots.get_mut(client) {
            Some(slot) => {
                slot.log.advance(now, &take.quota);
                slot.log.decide(now, &take.quota, take.cost)
            }
            None => Log::default().decide(now, &take.quota, take.cost),
        }
    }

    /// Counts a request that [`decide`](Self::decide) allowed, and says how the limit stands then.
    fn admit(&mut self, now: u64, take: &Take, resolution: u32) -> Taken {
        let client = Lookup { limiter: take.limiter, key: &take.key };
        let slot = match self.slots.get_index_of(&client) {
            Some(index) => &mut self.slots[index],
            None => self
                .slots
                .entry(Client { limiter: take.limiter, key: take.key.clone() })
                .or_insert(Slot { log: Log::default(), quota: take.quota }),
        };
        slot.quota = take.quota;
        let mark = slot.log.admit(now, &take.quota, take.cost, resolution, take.hold);
        Taken {
            decision: slot.log.decide(now, &take.quota, 0),
            hold: take.hold.then(|| take.hold(mark)),
        }
    }

    /// Lets idle clients go, and, where the shard is full and this one is new, one more.
    fn make_room(
        &mut self,
        now: u64,
        client: &Lookup<'_>,
        capacity: usize,
    ) -> Result<(), StoreError> {
        if self.slots.contains_key(client) {
            return Ok(());
        }
        for _ in 0..SWEPT {
            let at = self.next_place();
            if self.slots.get_index(at).is_some_and(|(_, slot)| slot.log.is_idle(now, &slot.quota))
            {
                self.slots.swap_remove_index(at);
            }
        }
        if self.slots.len() < capacity {
            return Ok(());
        }
        let sampled = (0..SAMPLED).filter_map(|_| {
            let at = self.next_place();
            self.slots.get_index_mut(at).map(|(_, slot)| (slot.room(now), at))
        });
        match sampled.max() {
            Some((room, at)) if room > 0 => self.slots.swap_remove_index(at),
            _ => return Err(StoreError::unavailable("every client remembered is at its limit")),
        };
        Ok(())
    }

    fn next_place(&mut self) -> usize {
        self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
        self.hand
    }
}

impl Slot {
    /// Which part of its limit is free, in 65,536ths; 0 where it is reached.
    fn room(&mut self, now: u64) -> u64 {
        self.log.advance(now, &self.quota);
        let remaining = u64::from(self.log.decide(now, &self.quota, 0).remaining);
        (remaining << 16).div_ceil(u64::from(self.quota.limit()))
    }
}

/// A [`Client`] that needs no clone of the key.
#[derive(Clone, Copy, Hash)]
struct Lookup<'a> {
    limiter: &'static str,
    key: &'a Key,
}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Lookup { limiter: self.limiter, key: &self.key }.hash(state);
    }
}

impl Equivalent<Client> for Lookup<'_> {
    fn equivalent(&self, client: &Client) -> bool {
        self.limiter == client.limiter && *self.key == client.key
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // No code that runs under the lock leaves a log half changed.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ManualClock;

    fn take(store: &MemoryRateLimitStore, key: &str, limit: u32) -> Result<bool, StoreError> {
        let take = Take {
            limiter: "ip",
            key: key.into(),
            quota: Quota::per_minute(limit),
            cost: 1,
            hold: false,
        };
        store.take_one(&take).map(|taken| taken.decision.allowed)
    }

    #[test]
    fn idle_clients_leave_as_new_ones_come() {
        let clock = ManualClock::new();
        let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
        for i in 0..1_000 {
            take(&store, &format!("early {i}"), 10).unwrap();
        }
        assert_eq!(store.len(), 1_000);
        clock.advance(Duration::from_secs(60));
        for i in 0..1_000 {
            take(&store, &format!("late {i}"), 10).unwrap();
        }
        assert!(store.len() < 1_300, "{} clients are remembered", store.len());
    }

    #[test]
    fn a_flood_of_strangers_does_not_free_the_flooder() {
        let store = MemoryRateLimitStore::new().with_capacity(100);
        for _ in 0..9 {
            assert!(take(&store, "flooder", 10).unwrap());
        }
        for i in 0..10_000 {
            assert!(take(&store, &format!("made up {i}"), 10).unwrap());
        }
        assert_eq!(store.len(), 100);
        assert!(take(&store, "flooder", 10).unwrap(), "the tenth");
        for i in 0..10_000 {
            assert!(take(&store, &format!("made up again {i}"), 10).unwrap());
        }
        assert!(!take(&store, "flooder", 10).unwrap());
    }

    #[test]
    fn a_store_full_of_clients_at_their_limit_says_that_it_cannot_decide() {
        let store = MemoryRateLimitStore::new().with_capacity(10);
        for i in 0..10 {
            assert!(take(&store, &format!("client {i}"), 1).unwrap());
        }
        assert!(take(&store, "stranger", 1).unwrap_err().is_unavailable());
        assert!(!take(&store, "client 3", 1).unwrap());
    }
}
