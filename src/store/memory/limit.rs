//! Limits counted in this process.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{
    clients::{Client, Clients},
    refusals::Refusal,
};
use crate::{
    Answer, SharedClock, StoreError, SystemClock,
    limit::{
        Decision, Key, LimiterName, RateLimitStore,
        store::{Decisions, Hold, RESOLUTION, SlidingWindow, Take, Taken},
    },
};

/// A [`RateLimitStore`] in this process: exact, and never out of reach.
///
/// Counts are lost at a restart, and two servers count apart; that is what
/// a shared store is for. Time is the clock's monotonic one.
///
/// Memory is bounded: at most so many clients are remembered, 1,000,000 unless configured. A client
/// takes 95 bytes for one request or two and 222 for five, measured with a million. Those whose
/// requests have all left the window leave first, at most a window later, without a task that anybody
/// has to start. Where nobody is idle, one that is far from its limit makes room for a stranger; one
/// that has reached its limit never does, so that a flood of made-up clients doesn't free the
/// flooder. Where all that were looked at have reached theirs, the store says that it can't decide.
///
/// A request that is refused again before the instant that the refusal named takes no lock.
///
/// ```
/// use tower_warden::{Quota, limit::{LimiterName, RateLimitStore, store::Take}, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryRateLimitStore::new();
/// let quota = Quota::per_minute(1);
/// let take = Take::new(LimiterName::new("ip")?, "203.0.113.9", quota);
/// assert!(store.take(std::slice::from_ref(&take)).await?[0].decision.is_allowed());
/// assert!(!store.take(&[take]).await?[0].decision.is_allowed());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryRateLimitStore {
    clock: SharedClock,
    resolution: u32,
    state: Arc<State>,
}

struct State {
    clients: Clients,
    hasher: RandomState,
    shards: Box<[Padded]>,
    shard_capacity: usize,
    /// So many of each shard, which are written under its lock.
    refusals: Box<[Refusal]>,
}

/// A cache line of its own, so that locks taken by different threads don't fight over one.
#[derive(Default)]
#[repr(align(64))]
struct Padded {
    /// A bit for each of its refusals that has ever been written, so that nobody looks at others.
    refused: AtomicU32,
    shard: Mutex<Shard>,
}

#[derive(Default)]
struct Shard {
    slots: HashTable<Slot>,
    /// The bucket where the search for idle slots goes on.
    hand: usize,
}

/// What is remembered of one client: a cache line.
#[repr(align(64))]
struct Slot {
    client: Client,
    log: SlidingWindow,
}

/// As many clients as a table of 2^14 buckets holds at most: a store that is full has full tables.
const SHARD_CAPACITY: usize = (1 << 14) / 8 * 7;
/// So many refusals of a shard are remembered.
const REFUSALS: usize = 16;
/// Looked at for each new client, so that idle ones leave as fast as new ones come: at least a
/// quarter of a table's buckets is in use.
const SWEPT: usize = 8;
/// So many are looked at for one that makes room.
const SAMPLED: usize = 32;

/// Where a client is found.
#[derive(Clone, Copy)]
struct Place {
    client: Client,
    hash: u64,
    shard: usize,
}

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
        self.state.shards.iter().map(|shard| shard.lock().slots.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn now(&self) -> u64 {
        self.clock.monotonic_micros()
    }

    fn decide(&self, take: &Take) -> Result<Taken, StoreError> {
        let now = self.now();
        let place = self.state.place(take);
        if let Some(decision) = self.recall(&place, take, now) {
            return Ok(Taken { decision, hold: None });
        }
        let mut shard = self.state.shards[place.shard].lock();
        let Some(slot) = shard.find(&place) else {
            let decision = SlidingWindow::default().decide(now, &take.quota, take.cost);
            if !decision.is_allowed() || take.cost == 0 {
                return Ok(Taken { decision, hold: None });
            }
            shard.make_room(now, self.state.shard_capacity)?;
            return Ok(shard.insert(&place, &self.state.hasher).admit(now, take, self.resolution));
        };
        // Others may have been here since the clock was read. For each log time goes forward.
        let now = now.max(slot.log.latest());
        if take.hold {
            slot.log.advance(now, &take.quota);
            if slot.log.decide(now, &take.quota, take.cost).is_allowed() {
                return Ok(slot.admit(now, take, self.resolution));
            }
        }
        let decision = slot.log.take(now, &take.quota, take.cost, self.resolution);
        if !decision.is_allowed() {
            self.remember(&place, take, &decision, now);
        }
        Ok(Taken { decision, hold: None })
    }

    fn decide_all(&self, takes: &[Take]) -> Result<Decisions, StoreError> {
        let places: SmallVec<[Place; 4]> =
            takes.iter().map(|take| self.state.place(take)).collect();
        // Always locked in the same order, so that two requests never wait for one another.
        let mut order: SmallVec<[usize; 4]> = places.iter().map(|place| place.shard).collect();
        order.sort_unstable();
        order.dedup();
        let mut guards: SmallVec<[MutexGuard<'_, Shard>; 4]> =
            order.iter().map(|shard| self.state.shards[*shard].lock()).collect();
        let guard = |place: &Place| order.binary_search(&place.shard).unwrap_or_default();
        let now = self.now();

        let mut decisions = Decisions::new();
        let mut crowded: SmallVec<[usize; 4]> = SmallVec::new();
        for (take, place) in takes.iter().zip(&places) {
            let decision = match guards[guard(place)].find(place) {
                Some(slot) => {
                    slot.log.advance(now, &take.quota);
                    slot.log.decide(now, &take.quota, take.cost)
                }
                None => {
                    if take.cost > 0 {
                        crowded.push(guard(place));
                    }
                    SlidingWindow::default().decide(now, &take.quota, take.cost)
                }
            };
            decisions.push(Taken { decision, hold: None });
        }
        if decisions.iter().any(|taken| !taken.decision.is_allowed()) {
            return Ok(decisions);
        }
        // Room for all before any is counted: a shard that has none must not leave half of them.
        for shard in crowded {
            guards[shard].make_room(now, self.state.shard_capacity)?;
        }
        for ((take, place), taken) in takes.iter().zip(&places).zip(decisions.iter_mut()) {
            if take.cost == 0 {
                continue;
            }
            let shard = &mut guards[guard(place)];
            if shard.find(place).is_none() {
                shard.insert(place, &self.state.hasher);
            }
            if let Some(slot) = shard.find(place) {
                *taken = slot.admit(now, take, self.resolution);
            }
        }
        Ok(decisions)
    }

    /// The refusal that is known already, without a lock.
    #[inline]
    fn recall(&self, place: &Place, take: &Take, now: u64) -> Option<Decision> {
        if self.state.shards[place.shard].refused.load(Ordering::Relaxed) & place.refusal_bit() == 0
        {
            return None;
        }
        let until = self.state.refusal(place).until(place.client, &take.quota)?;
        let wait = until.checked_sub(now).filter(|wait| *wait > 0)?;
        (take.cost == 1).then(|| Decision::in_micros(take.quota, 0, wait).refused_for(wait))
    }

    /// Remembers a refusal that nothing but time ends: all is taken, and what leaves first makes
    /// room. Expects the shard to be locked.
    fn remember(&self, place: &Place, take: &Take, decision: &Decision, now: u64) {
        if take.cost == 1
            && decision.remaining() == 0
            && decision.retry_after() == Some(decision.reset_after())
        {
            let until = now + decision.reset_after().as_micros() as u64;
            self.state.refusal(place).put(place.client, &take.quota, until);
            self.state.shards[place.shard].refused.fetch_or(place.refusal_bit(), Ordering::Relaxed);
        }
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
            [take] => self.decide(take).map(Decisions::from),
            _ => self.decide_all(takes),
        })
    }

    fn take_now(&self, take: &Take) -> Option<Result<Taken, StoreError>> {
        Some(self.decide(take))
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let place = self.state.place_of(hold.limiter, &hold.key);
        let mut shard = self.state.shards[place.shard].lock();
        let now = self.now();
        Answer::Ready(Ok(match shard.find(&place) {
            Some(slot) => {
                slot.log.settle(now, &hold.quota, hold.cost, self.resolution, hold.mark, keep);
                self.state.refusal(&place).forget();
                slot.log.decide(now, &hold.quota, 0)
            }
            None => SlidingWindow::default().decide(now, &hold.quota, 0),
        }))
    }

    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let place = self.state.place_of(limiter, key);
        let mut shard = self.state.shards[place.shard].lock();
        self.state.refusal(&place).forget();
        if let Ok(slot) = shard.slots.find_entry(place.hash, |slot| slot.client == place.client) {
            slot.remove();
        }
        Answer::Ready(Ok(()))
    }

    fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }
}

impl fmt::Debug for MemoryRateLimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRateLimitStore").finish_non_exhaustive()
    }
}

impl State {
    fn new(capacity: usize) -> Self {
        let shards = capacity.div_ceil(SHARD_CAPACITY).max(1);
        Self {
            clients: Clients::default(),
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| Padded::default()).collect(),
            shard_capacity: capacity.div_ceil(shards).max(1),
            refusals: (0..shards * REFUSALS).map(|_| Refusal::default()).collect(),
        }
    }

    #[inline]
    fn place(&self, take: &Take) -> Place {
        self.place_of(take.limiter, &take.key)
    }

    #[inline]
    fn place_of(&self, limiter: LimiterName, key: &Key) -> Place {
        let client = self.clients.client(limiter, key);
        let hash = client.hash(&self.hasher);
        // By bits in the middle of the hash, scaled. The table takes a place from the lowest bits and
        // tells clients apart by the highest: were those alike in a shard, it would look at many.
        let middle = u64::from((hash >> 24) as u32);
        let shard = (middle * self.shards.len() as u64) >> 32;
        Place { client, hash, shard: shard as usize }
    }

    fn refusal(&self, place: &Place) -> &Refusal {
        &self.refusals[place.shard * REFUSALS + place.refusal()]
    }
}

impl Place {
    /// Which of the shard's refusals is this client's.
    fn refusal(&self) -> usize {
        self.hash as usize % REFUSALS
    }

    fn refusal_bit(&self) -> u32 {
        1 << self.refusal()
    }
}

impl Padded {
    fn lock(&self) -> MutexGuard<'_, Shard> {
        // No code that runs under the lock leaves a log half changed.
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn find(&mut self, place: &Place) -> Option<&mut Slot> {
        self.slots.find_mut(place.hash, |slot| slot.client == place.client)
    }

    fn insert(&mut self, place: &Place, hasher: &RandomState) -> &mut Slot {
        let slot = Slot { client: place.client, log: SlidingWindow::default() };
        let rehash = |slot: &Slot| slot.client.hash(hasher);
        self.slots.insert_unique(place.hash, slot, rehash).into_mut()
    }

    /// Lets idle clients go, and, where the shard is full, one more.
    fn make_room(&mut self, now: u64, capacity: usize) -> Result<(), StoreError> {
        for _ in 0..SWEPT.min(self.slots.num_buckets()) {
            let at = self.next_bucket();
            if self.slots.get_bucket(at).is_some_and(|slot| slot.log.is_idle(now)) {
                self.remove(at);
            }
        }
        if self.slots.len() < capacity {
            return Ok(());
        }
        let sampled = (0..self.slots.num_buckets()).filter_map(|_| {
            let at = self.next_bucket();
            self.slots.get_bucket(at).map(|slot| (slot.log.room(), at))
        });
        match sampled.take(SAMPLED).max() {
            Some((room, at)) if room > 0 => self.remove(at),
            _ => return Err(StoreError::unavailable("every client remembered is at its limit")),
        }
        Ok(())
    }

    fn next_bucket(&mut self) -> usize {
        self.hand = if self.hand + 1 < self.slots.num_buckets() { self.hand + 1 } else { 0 };
        self.hand
    }

    fn remove(&mut self, bucket: usize) {
        if let Ok(slot) = self.slots.get_bucket_entry(bucket) {
            slot.remove();
        }
    }
}

impl Slot {
    /// Counts a request that was allowed, and says how the limit stands then.
    fn admit(&mut self, now: u64, take: &Take, resolution: u32) -> Taken {
        let mark = self.log.admit(now, &take.quota, take.cost, resolution, take.hold);
        Taken {
            decision: self.log.decide(now, &take.quota, 0),
            hold: (take.hold && take.cost > 0).then(|| take.held_by(mark)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ManualClock, Quota};

    fn name(text: &str) -> LimiterName {
        LimiterName::new(text).unwrap()
    }

    fn take(store: &MemoryRateLimitStore, key: &str, limit: u32) -> Result<bool, StoreError> {
        let take = Take::new(name("ip"), key, Quota::per_minute(limit));
        store.decide(&take).map(|taken| taken.decision.is_allowed())
    }

    #[test]
    fn idle_clients_leave_as_new_ones_come() {
        let clock = ManualClock::new();
        let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
        for i in 0..1_000 {
            take(&store, &format!("early {i}"), 10).unwrap();
        }
        assert_eq!(store.len(), 1_000);
        clock.advance(Duration::from_secs(120));
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

    #[test]
    fn what_is_given_back_ends_a_refusal_that_was_remembered() {
        let clock = ManualClock::new();
        let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
        let guess = Take::new(name("login"), "client", Quota::per_minute(1)).on_trial();
        let hold = store.decide(&guess).unwrap().hold.unwrap();
        clock.advance(Duration::from_millis(59_500));
        for _ in 0..2 {
            let refused = store.decide(&guess).unwrap().decision;
            assert_eq!(refused.retry_after(), Some(Duration::from_millis(500)));
        }
        assert!(matches!(store.settle(*hold, false), Answer::Ready(Ok(_))));
        assert!(store.decide(&guess).unwrap().decision.is_allowed());
    }

    #[test]
    fn a_refusal_that_is_remembered_ends_at_the_instant_it_named() {
        let clock = ManualClock::new();
        let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
        assert!(take(&store, "client", 1).unwrap());
        for _ in 0..2 {
            assert!(!take(&store, "client", 1).unwrap());
        }
        clock.advance(Duration::from_micros(59_999_999));
        assert!(!take(&store, "client", 1).unwrap());
        clock.advance(Duration::from_micros(1));
        assert!(take(&store, "client", 1).unwrap());
    }

    #[test]
    fn who_only_looks_needs_no_room() {
        let store = MemoryRateLimitStore::new().with_capacity(10);
        for i in 0..9 {
            assert!(take(&store, &format!("client {i}"), 1).unwrap());
        }
        let counts = |key, cost| Take::new(name("ip"), key, Quota::per_minute(10)).with_cost(cost);
        store.decide(&counts("caller", 5)).unwrap();
        let decisions = store.decide_all(&[counts("caller", 1), counts("stranger", 0)]).unwrap();
        assert_eq!(decisions[0].decision.remaining(), 4);
    }
}
