//! Limits counted in this process.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use super::{
    codec::{self, Note},
    line::{Guard, KEY, Patience},
    logs::head_of,
    table::{Apart, Found, Held, Place, Slot, Table},
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
/// takes 83 to 116 bytes for up to eight requests, by how full the table is (measured from 100,000 clients
/// on; 91 with a million); from the ninth on (where the limit is high, the sixth 64th of a window that has
/// any) 128 bytes more, up to 17, and at most 512 more. Addresses for all of them are reserved at once, and memory is taken as they come.
///
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
    table: Arc<Apart<Table>>,
}

/// The clock. The machine's is asked without a detour, which takes as long as the arithmetic.
#[derive(Clone)]
enum Time {
    Machine(SystemClock),
    Other(SharedClock),
}

/// The lines of those clients of a request that are known, locked, by slot.
type Locked<'a> = SmallVec<[(Slot, Guard<'a>); 4]>;
/// The segments of all of them, by number.
type Segments<'a> = SmallVec<[Held<'a>; 4]>;

impl MemoryRateLimitStore {
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            time: Time::Machine(SystemClock::new()),
            resolution: RESOLUTION,
            table: table(1_000_000),
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
        Self { table: table(clients), ..self }
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
        self.table().len()
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
    fn table(&self) -> &Table {
        &self.table.0
    }

    #[inline]
    fn decide(&self, take: &Take) -> Result<Taken, StoreError> {
        let now = self.now();
        let place = self.table().place(take.limiter, &take.key);
        let known = self.table().find(&place);
        match known.and_then(|found| self.decide_known(&place, found, take, now)) {
            Some(decision) => Ok(Taken::new(decision)),
            None => self.decide_alone(take, now),
        }
    }

    /// Decides by what most requests need of a client's line, unless that isn't enough, or it was changed
    /// meanwhile.
    #[inline(always)]
    fn decide_known(
        &self,
        place: &Place,
        Found { line, state, .. }: Found<'_>,
        take: &Take,
        now: u64,
    ) -> Option<Decision> {
        let mut head = head_of(line, state);
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
                let logs = self.table().logs(place);
                logs.begin((line, state), &mut head, take, now, self.resolution)?;
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
        let place = self.table().place(take.limiter, &take.key);
        if let Some((_, mut guard)) = self.table().lock(&place) {
            return Ok(self.decide_whole(&place, &mut guard, take, now));
        }
        let mut segment = self.table().hold(&place);
        if let Some((_, mut guard)) = segment.lock(&place) {
            return Ok(self.decide_whole(&place, &mut guard, take, now));
        }
        let mut log = SlidingWindow::default();
        let decision = log.decide(now, &take.quota, take.cost);
        if !decision.is_allowed() || take.cost == 0 {
            return Ok(Taken::new(decision));
        }
        segment.make_room(now, 1, &[])?;
        let taken = self.admit(&mut log, take, now);
        segment.insert(&place, log)?;
        Ok(taken)
    }

    /// Decides by the whole log.
    fn decide_whole(&self, place: &Place, guard: &mut Guard<'_>, take: &Take, now: u64) -> Taken {
        self.table().logs(place).change(guard, |log| {
            let now = now.max(log.head.at);
            log.advance(now);
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

    fn decide_all(&self, takes: &[Take]) -> Result<Decisions, StoreError> {
        let place = |take: &Take| self.table().place(take.limiter, &take.key);
        let places: SmallVec<[Place; 4]> = takes.iter().map(place).collect();
        let mut patience = Patience::default();
        loop {
            if let Some(mut locked) = self.lock_known(&places, &[]) {
                let nobody = &mut Segments::new();
                if let Some(decisions) =
                    self.decide_locked(takes, &places, &mut locked, nobody, Ok(()))?
                {
                    return Ok(decisions);
                }
                drop(locked);
                // Somebody isn't known.
                let (mut segments, room) = self.with_room(takes, &places);
                if let Some(mut locked) = self.lock_known(&places, &segments)
                    && let Some(decisions) =
                        self.decide_locked(takes, &places, &mut locked, &mut segments, room)?
                {
                    return Ok(decisions);
                }
            }
            patience.wait();
        }
    }

    /// The segments of these clients, where from now on nobody comes or goes; and whether they have room
    /// for those who will be counted and aren't there: for all before any is, so that never half of them
    /// are counted.
    fn with_room(
        &self,
        takes: &[Take],
        places: &[Place],
    ) -> (Segments<'_>, Result<(), StoreError>) {
        let mut one_each: SmallVec<[&Place; 4]> = places.iter().collect();
        one_each.sort_unstable_by_key(|place| self.table().segment_of(place));
        one_each.dedup_by_key(|place| self.table().segment_of(place));
        let mut segments: Segments<'_> =
            one_each.into_iter().map(|place| self.table().hold(place)).collect();
        let room = segments.iter_mut().try_for_each(|segment| {
            let strangers = takes.iter().zip(places).filter(|(take, place)| {
                take.cost > 0 && segment.is_of(place) && segment.find(place).is_none()
            });
            let newcomers = strangers.count();
            segment.make_room(self.now(), newcomers, places)
        });
        (segments, room)
    }

    /// Locks the lines of those that are known, always in the same order, so that two requests never
    /// wait for one another. `None` where one of them went meanwhile, which nobody does whose segment
    /// is held.
    fn lock_known<'a>(&'a self, places: &[Place], segments: &[Held<'a>]) -> Option<Locked<'a>> {
        let find = |place: &Place| match segments.iter().find(|segment| segment.is_of(place)) {
            Some(segment) => segment.find(place),
            None => self.table().find(place),
        };
        let slot = |place| find(place).map(|found| (found.slot, place));
        let mut known: SmallVec<[(Slot, &Place); 4]> = places.iter().filter_map(slot).collect();
        known.sort_unstable_by_key(|(slot, _)| *slot);
        known.dedup_by_key(|(slot, _)| *slot);
        let mut locked = Locked::new();
        for (slot, place) in known {
            let mut patience = Patience::default();
            loop {
                // It may have moved: to another slot, out of order.
                let found = find(place).filter(|found| found.slot == slot)?;
                if let Some(guard) = found.line.lock(found.state) {
                    locked.push((slot, guard));
                    break;
                }
                patience.wait();
            }
        }
        Some(locked)
    }

    /// Decides some takes of which all lines that are known are locked; `None` where one isn't there,
    /// and no segments are held, so that it may be after all.
    fn decide_locked(
        &self,
        takes: &[Take],
        places: &[Place],
        locked: &mut Locked<'_>,
        segments: &mut Segments<'_>,
        room: Result<(), StoreError>,
    ) -> Result<Option<Decisions>, StoreError> {
        let now = self.now();
        let latest =
            |guard: &Guard<'_>| now.max(codec::head(Note(guard.note()), |i| guard.word(i)).at);
        let logs = |place: &Place| self.table().logs(place);
        let mut decisions = Decisions::new();
        for (take, place) in takes.iter().zip(places) {
            let decision = match line_of(place, locked) {
                Some(guard) => {
                    let now = latest(guard);
                    logs(place).change(guard, |log| {
                        log.advance(now);
                        log.decide(now, &take.quota, take.cost)
                    })
                }
                None if segments.is_empty() => return Ok(None),
                None => SlidingWindow::default().decide(now, &take.quota, take.cost),
            };
            decisions.push(Taken::new(decision));
        }
        if decisions.iter().any(|taken| !taken.decision.is_allowed()) {
            return Ok(Some(decisions));
        }
        room?;
        for ((take, place), taken) in takes.iter().zip(places).zip(decisions.iter_mut()) {
            if take.cost == 0 {
                continue;
            }
            if let Some(guard) = line_of(place, locked) {
                let now = latest(guard);
                *taken = logs(place).change(guard, |log| self.admit(log, take, now));
            } else if let Some(segment) = segments.iter_mut().find(|segment| segment.is_of(place)) {
                match segment.lock(place) {
                    // Somebody may be a stranger twice.
                    Some((_, mut guard)) => {
                        *taken = logs(place).change(&mut guard, |log| self.admit(log, take, now));
                    }
                    None => {
                        let mut log = SlidingWindow::default();
                        *taken = self.admit(&mut log, take, now);
                        segment.insert(place, log)?;
                    }
                }
            }
        }
        Ok(Some(decisions))
    }
}

/// The line of this client among those that are locked.
fn line_of<'a, 'b>(place: &Place, locked: &'b mut Locked<'a>) -> Option<&'b mut Guard<'a>> {
    let is_its = |guard: &Guard<'_>| {
        Note(guard.note()).whose() == place.client.whose && guard.word(KEY) == place.client.key
    };
    locked.iter_mut().map(|(_, guard)| guard).find(|guard| is_its(guard))
}

fn table(capacity: usize) -> Arc<Apart<Table>> {
    Arc::new(Apart(Table::new(capacity)))
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
        let place = self.table().place(hold.limiter, &hold.key);
        let settle = |guard: &mut Guard<'_>| {
            self.table().logs(&place).change(guard, |log| {
                let now = self.now().max(log.head.at);
                log.settle(now, &hold.quota, hold.cost, self.resolution, hold.mark, keep);
                log.decide(now, &hold.quota, 0)
            })
        };
        let found = self.table().lock(&place);
        Answer::Ready(Ok(match found.or_else(|| self.table().hold(&place).lock(&place)) {
            Some((_, mut guard)) => settle(&mut guard),
            None => SlidingWindow::default().decide(self.now(), &hold.quota, 0),
        }))
    }

    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let place = self.table().place(limiter, key);
        self.table().hold(&place).forget(&place);
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

#[cfg(test)]
mod tests;
