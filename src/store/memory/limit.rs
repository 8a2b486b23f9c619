//! Limits counted in this process.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use super::{
    clients::Clients,
    codec::{self, Note},
    line::{Guard, Patience},
    shard::{self, Apart, Begun, Found, Place, Shard, Table},
};
use crate::{
    Answer, Clock, SharedClock, StoreError, SystemClock,
    limit::{
        Decision, Key, LimiterName, RateLimitStore,
        store::{Decisions, Hold, RESOLUTION, SlidingWindow, Take, Taken},
        window::Step,
    },
};

/// A [`RateLimitStore`] in this process: exact, and never out of reach.
///
/// Counts are lost at a restart, and two servers count apart; that is what
/// a shared store is for. Time is the clock's monotonic one.
///
/// Memory is bounded: at most so many clients are remembered, 1,000,000 unless configured. A client
/// takes some 80 bytes for up to eight requests, measured with a million; from the ninth on (where the
/// limit is high, the sixth 64th of a window that has any) 128 bytes more, up to 17, and at most 512 more.
/// Those whose requests have all left the window leave first, at most a window later, without a task
/// that anybody has to start. Where nobody is idle, one that is far from its limit makes room for a
/// stranger; one that has reached its limit never does, so that a flood of made-up clients doesn't
/// free the flooder. Where all that were looked at have reached theirs, the store says that it can't
/// decide.
///
/// A client that is known is decided without a lock that others wait for: it has a cache line of its
/// own, and a refusal only reads it.
///
/// ```
/// use tower_warden::{Quota, limit::{LimiterName, RateLimitStore, store::Take}};
/// use tower_warden::store::memory::MemoryRateLimitStore;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryRateLimitStore::new();
/// let take = Take::new(LimiterName::new("ip")?, "203.0.113.9", Quota::per_minute(1));
/// assert!(store.take(std::slice::from_ref(&take)).await?[0].decision.is_allowed());
/// assert!(!store.take(&[take]).await?[0].decision.is_allowed());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryRateLimitStore {
    time: Time,
    resolution: u32,
    state: Arc<State>,
}

struct State {
    clients: Clients,
    shards: Box<[Apart<Shard>]>,
}

/// The clock. The machine's is asked without a detour, which takes as long as the arithmetic.
#[derive(Clone)]
enum Time {
    Machine(SystemClock),
    Other(SharedClock),
}

/// At least so many shards, where each of them has some clients: so many can add one at a time.
const SHARDS: usize = 16;
const FEW: usize = 256;

/// A client, and its shard.
#[derive(Clone, Copy)]
struct Address {
    shard: usize,
    place: Place,
}

/// What is done with some takes together: of each its line, locked, where it is known.
type Locked<'a> = SmallVec<[(usize, usize, Guard<'a>); 4]>;

impl MemoryRateLimitStore {
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            time: Time::Machine(SystemClock::new()),
            resolution: RESOLUTION,
            state: Arc::new(State::new(1_000_000)),
        }
    }

    /// The same on another clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { time: Time::Other(clock), ..self }
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
        self.state.shards.iter().map(|shard| shard.0.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn now(&self) -> u64 {
        match &self.time {
            Time::Machine(clock) => clock.monotonic_micros(),
            Time::Other(clock) => clock.monotonic_micros(),
        }
    }

    #[inline]
    fn decide(&self, take: &Take) -> Result<Taken, StoreError> {
        let now = self.now();
        let address = self.state.address(take.limiter, &take.key);
        let shard = &self.state.shards[address.shard].0;
        let Some(found) = shard.find(&address.place) else {
            return self.decide_alone(take, now);
        };
        match self.decide_known(shard, found, take, now) {
            Some(decision) => Ok(Taken::new(decision)),
            None => self.decide_alone(take, now),
        }
    }

    /// Decides by what most requests need of a client's line, unless that isn't enough, or it was changed
    /// meanwhile.
    #[inline(always)]
    fn decide_known(
        &self,
        shard: &Shard,
        Found { line, state, .. }: Found<'_>,
        take: &Take,
        now: u64,
    ) -> Option<Decision> {
        let mut head = shard::head_of(line, state);
        // Others may have been here since the clock was read. For each client time goes forward.
        let now = now.max(head.at);
        let wait = match head.step(now, &take.quota, take.cost, self.resolution) {
            Step::Refused(wait) if line.is_still(state) => wait,
            Step::Stands if line.is_still(state) => 0,
            Step::Counted if !take.hold => {
                let mut guard = line.lock(state)?;
                codec::set_head(&mut guard, &head);
                0
            }
            Step::Whole if !take.hold => {
                let Begun { used, oldest } =
                    shard.begin(line, state, take, now, self.resolution)?;
                (head.used, head.oldest) = (used.get(), oldest);
                0
            }
            _ => return None,
        };
        // Made in one place, and written where it is wanted: copied, it would cost a tenth more.
        Some(head.standing(now, &take.quota).waiting_for(wait))
    }

    /// The same for any client: a stranger, one that many ask about, one whose whole log is needed.
    #[cold]
    #[inline(never)]
    fn decide_alone(&self, take: &Take, now: u64) -> Result<Taken, StoreError> {
        let address = self.state.address(take.limiter, &take.key);
        let shard = &self.state.shards[address.shard].0;
        loop {
            if let Some((_, guard)) = shard.lock(&address.place) {
                return Ok(self.decide_whole(shard, guard, take, now));
            }
            if let Some(taken) = self.decide_stranger(shard, &address.place, take, now)? {
                return Ok(taken);
            }
        }
    }

    /// Decides by the whole log.
    fn decide_whole(&self, shard: &Shard, mut guard: Guard<'_>, take: &Take, now: u64) -> Taken {
        shard.change(&mut guard, |log| {
            let now = now.max(log.head.at);
            log.advance(now, &take.quota);
            let decision = log.decide(now, &take.quota, take.cost);
            if !decision.is_allowed() || take.cost == 0 {
                return Taken::new(decision);
            }
            self.admit(log, take, now)
        })
    }

    /// Counts a request that was allowed, and says how the limit stands then.
    fn admit(&self, log: &mut SlidingWindow, take: &Take, now: u64) -> Taken {
        let mark = log.admit(now, &take.quota, take.cost, self.resolution, take.hold);
        let hold = (take.hold && take.cost > 0).then(|| take.held_by(mark));
        Taken::new(log.decide(now, &take.quota, 0)).with_hold(hold)
    }

    /// Decides for a client that was not found; `None` where it is there after all.
    #[cold]
    fn decide_stranger(
        &self,
        shard: &Shard,
        place: &Place,
        take: &Take,
        now: u64,
    ) -> Result<Option<Taken>, StoreError> {
        let mut log = SlidingWindow::default();
        let decision = log.decide(now, &take.quota, take.cost);
        let mut table = shard.table();
        if shard.find(place).is_some() {
            return Ok(None);
        }
        if !decision.is_allowed() || take.cost == 0 {
            return Ok(Some(Taken::new(decision)));
        }
        shard.make_room(&mut table, &self.state.clients, now, 1)?;
        let taken = self.admit(&mut log, take, now);
        shard.insert(&mut table, &self.state.clients, place, log)?;
        Ok(Some(taken))
    }

    fn decide_all(&self, takes: &[Take]) -> Result<Decisions, StoreError> {
        let addresses: SmallVec<[Address; 4]> =
            takes.iter().map(|take| self.state.address(take.limiter, &take.key)).collect();
        let mut patience = Patience::default();
        loop {
            if let Some(locked) = self.lock_known(&addresses) {
                if let Some(decisions) = self.decide_locked(takes, &addresses, locked, None)? {
                    return Ok(decisions);
                }
                // Somebody isn't known. Under these locks nobody comes or goes.
                let mut shards: SmallVec<[usize; 4]> =
                    addresses.iter().map(|address| address.shard).collect();
                shards.sort_unstable();
                shards.dedup();
                let mut tables: Tables<'_> = shards
                    .into_iter()
                    .map(|shard| (shard, self.state.shards[shard].0.table()))
                    .collect();
                if let Some(locked) = self.lock_known(&addresses)
                    && let Some(decisions) =
                        self.decide_locked(takes, &addresses, locked, Some(&mut tables))?
                {
                    return Ok(decisions);
                }
            }
            patience.wait();
        }
    }

    /// Locks the lines of those that are known, always in the same order, so that two requests never
    /// wait for one another. `None` where one of them went meanwhile.
    fn lock_known(&self, addresses: &[Address]) -> Option<Locked<'_>> {
        let mut known: SmallVec<[(usize, usize, &Place); 4]> = SmallVec::new();
        for Address { shard, place } in addresses {
            if let Some(found) = self.state.shards[*shard].0.find(place) {
                known.push((*shard, found.slot, place));
            }
        }
        known.sort_unstable_by_key(|(shard, slot, _)| (*shard, *slot));
        known.dedup_by_key(|(shard, slot, _)| (*shard, *slot));
        let mut locked = Locked::new();
        for (shard, slot, place) in known {
            let (found, guard) = self.state.shards[shard].0.lock(place)?;
            // It may have gone and come back: to another slot, out of order.
            if found.slot != slot {
                return None;
            }
            locked.push((shard, slot, guard));
        }
        Some(locked)
    }

    /// Decides some takes of which all lines that are known are locked; `None` where one is needed
    /// that isn't there, and it was not said under which tables it may be added.
    fn decide_locked<'a>(
        &'a self,
        takes: &[Take],
        addresses: &[Address],
        mut locked: Locked<'a>,
        tables: Option<&mut Tables<'_>>,
    ) -> Result<Option<Decisions>, StoreError> {
        let now = self.now();
        let latest =
            |guard: &Guard<'_>| now.max(codec::head(Note(guard.note()), |i| guard.word(i)).at);
        let mut decisions = Decisions::new();
        let mut strangers: SmallVec<[usize; 4]> = SmallVec::new();
        for (take, address) in takes.iter().zip(addresses) {
            let decision = match self.line_of(address, &mut locked) {
                Some((shard, guard)) => {
                    let now = latest(guard);
                    shard.change(guard, |log| {
                        log.advance(now, &take.quota);
                        log.decide(now, &take.quota, take.cost)
                    })
                }
                None => {
                    if take.cost > 0 {
                        strangers.push(address.shard);
                    }
                    SlidingWindow::default().decide(now, &take.quota, take.cost)
                }
            };
            decisions.push(Taken::new(decision));
        }
        if decisions.iter().any(|taken| !taken.decision.is_allowed()) {
            return Ok(Some(decisions));
        }
        let mut none = Tables::new();
        let tables = match tables {
            Some(tables) => tables,
            None if strangers.is_empty() => &mut none,
            None => return Ok(None),
        };
        // Room for all before any is counted: a shard that has none must not leave half of them.
        for (shard, table) in tables.iter_mut() {
            let newcomers = strangers.iter().filter(|stranger| *stranger == shard).count();
            let shard = &self.state.shards[*shard].0;
            shard.make_room(table, &self.state.clients, now, newcomers)?;
        }
        for ((take, address), taken) in takes.iter().zip(addresses).zip(decisions.iter_mut()) {
            if take.cost == 0 {
                continue;
            }
            if let Some((shard, guard)) = self.line_of(address, &mut locked) {
                let now = latest(guard);
                *taken = shard.change(guard, |log| self.admit(log, take, now));
            } else if let Some((_, mut guard)) =
                // Somebody may be a stranger twice.
                self.state.shards[address.shard].0.lock(&address.place)
            {
                let shard = &self.state.shards[address.shard].0;
                *taken = shard.change(&mut guard, |log| self.admit(log, take, now));
            } else if let Some((_, table)) =
                tables.iter_mut().find(|(shard, _)| *shard == address.shard)
            {
                let mut log = SlidingWindow::default();
                *taken = self.admit(&mut log, take, now);
                let shard = &self.state.shards[address.shard].0;
                shard.insert(table, &self.state.clients, &address.place, log)?;
            }
        }
        Ok(Some(decisions))
    }

    /// The line of this client among those that are locked.
    fn line_of<'a, 'b>(
        &'a self,
        address: &Address,
        locked: &'b mut Locked<'a>,
    ) -> Option<(&'a Shard, &'b mut Guard<'a>)> {
        let is_its = |guard: &Guard<'_>| {
            Note(guard.note()).whose() == address.place.client.whose
                && guard.word(super::line::KEY) == address.place.client.key
        };
        let found = locked.iter_mut().find(|(_, _, guard)| is_its(guard));
        found.map(|(shard, _, guard)| (&self.state.shards[*shard].0, guard))
    }
}

type Tables<'a> = SmallVec<[(usize, std::sync::MutexGuard<'a, Table>); 4]>;

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
        let Address { shard, place } = self.state.address(hold.limiter, &hold.key);
        let shard = &self.state.shards[shard].0;
        Answer::Ready(Ok(match shard.lock(&place) {
            Some((_, mut guard)) => shard.change(&mut guard, |log| {
                let now = self.now().max(log.head.at);
                log.settle(now, &hold.quota, hold.cost, self.resolution, hold.mark, keep);
                log.decide(now, &hold.quota, 0)
            }),
            None => SlidingWindow::default().decide(self.now(), &hold.quota, 0),
        }))
    }

    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let Address { shard, place } = self.state.address(limiter, key);
        self.state.shards[shard].0.forget(&self.state.clients, &place);
        Answer::Ready(Ok(()))
    }

    fn clock(&self) -> SharedClock {
        match &self.time {
            Time::Machine(clock) => Arc::new(clock.clone()),
            Time::Other(clock) => Arc::clone(clock),
        }
    }
}

impl fmt::Debug for MemoryRateLimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRateLimitStore").finish_non_exhaustive()
    }
}

impl State {
    fn new(capacity: usize) -> Self {
        let few = (capacity / FEW).clamp(1, SHARDS);
        let shards = capacity.div_ceil(shard::MOST).max(few);
        let each = capacity.div_ceil(shards);
        let shards = std::iter::repeat_with(|| Apart(Shard::new(each))).take(shards);
        Self { clients: Clients::default(), shards: shards.collect() }
    }

    #[inline]
    fn address(&self, limiter: LimiterName, key: &Key) -> Address {
        let client = self.clients.client(limiter, key);
        let hash = self.clients.place(client);
        // By the upper half of the hash, scaled.
        let shard = ((hash >> 32) * self.shards.len() as u64) >> 32;
        Address { shard: shard as usize, place: Place { client, hash } }
    }
}

#[cfg(test)]
mod tests;
