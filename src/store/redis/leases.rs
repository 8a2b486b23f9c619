//! Admissions taken in advance, for clients of whom much is asked; see
//! [`with_leases`](super::RedisRateLimitStore::with_leases).
//!
//! Why no limit is exceeded. A lease is asked for at an instant `a` by our own clock, and granted by
//! the server at a later one, `g`. It is spent until `a + D`, which is no later than `g + D`, where
//! the server has counted it. So every admission is counted there at an instant that is no earlier
//! than its own, and no more than a lease later. Take any window that ends at `T`, and the last grant
//! `g` that any admission in it came by: what was admitted in that window was granted by then, and is
//! counted later than `g - W`, so it was part of what the server summed when it granted the last. That
//! is never more than the limit. What is given back was not spent. Clocks need only run alike: a
//! lease is spent a little shorter than it is counted.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache;
use smallvec::SmallVec;

use super::script::{Found, Row, Wanted};
use crate::{Quota, limit::Decision};

/// How many keys are watched.
const KEYS: usize = 10_000;
/// Who asks so often within a lease's time is worth one.
const HOT: u32 = 16;
/// The first lease of a key, and the most that one is.
const FIRST: u32 = 8;
const MOST: u32 = 1024;
/// A lease lasts such a part of its window.
const OF_WINDOW: u32 = 64;
const LONGEST: Duration = Duration::from_secs(1);
/// A shorter one is not worth it.
const SHORTEST: Duration = Duration::from_millis(2);
/// Such a part of it is not spent: our clock may be slower than the server's.
const UNSPENT: u32 = 64;

/// By the name of the key.
#[derive(Debug)]
pub(super) struct Leases(Cache<String, Arc<Key>>);

/// What is known of a key.
#[derive(Debug)]
struct Key(Mutex<State>);

#[derive(Debug)]
struct State {
    quota: Quota,
    /// When these were first asked for.
    since: Duration,
    asked: u32,
    /// One asks for a lease at this moment.
    is_asking: bool,
    lease: Option<Lease>,
    /// How much to ask for next.
    next: u32,
    ended: SmallVec<[Ended; 1]>,
}

/// Admissions that are ours to give.
#[derive(Debug)]
struct Lease {
    left: u32,
    /// When it was known here; the decision is of that moment.
    since: Duration,
    until: Duration,
    decision: Decision,
    /// What remains once all of it is spent.
    rest: u32,
    mark: u64,
    wanted: Wanted,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) left: u32,
    pub(super) mark: u64,
    pub(super) wanted: Wanted,
}

/// What becomes of a request.
pub(super) enum Step {
    /// It is admitted by a lease.
    Spent(Decision),
    /// It asks for a lease.
    Ask(Asking),
    /// It is asked about like any other.
    NotHot,
}

impl Default for Leases {
    fn default() -> Self {
        Self(Cache::new(KEYS))
    }
}

impl Leases {
    /// What becomes of a request at this moment.
    pub(super) fn next(&self, row: &Row, now: Duration) -> Step {
        let lasts = (row.quota.window() / OF_WINDOW).min(LONGEST);
        if row.flag || row.cost != 1 || lasts < SHORTEST {
            return Step::NotHot;
        }
        let key = self.0.get(&row.key).unwrap_or_else(|| {
            let key = Arc::new(Key(Mutex::new(State::new(row.quota, now))));
            self.0.insert(row.key.clone(), Arc::clone(&key));
            key
        });
        let mut state = key.state();
        if state.quota != row.quota {
            state.change(row.quota, now);
        }
        if let Some(decision) = state.spend(now) {
            return Step::Spent(decision);
        }
        if now.saturating_sub(state.since) > lasts {
            (state.since, state.asked) = (now, 0);
        }
        state.asked = state.asked.saturating_add(1);
        if state.asked < HOT || state.is_asking {
            return Step::NotHot;
        }
        state.is_asking = true;
        let wanted = Wanted { micros: lasts.as_micros() as u64, most: state.next };
        drop(state);
        Step::Ask(Asking { key, wanted, is_out: true })
    }

    /// Spends no more for this key.
    pub(super) fn forget(&self, key: &str) {
        if let Some(key) = self.0.get(key) {
            let mut state = key.state();
            state.lease = None;
            state.ended.clear();
        }
    }
}

impl Key {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(quota: Quota, now: Duration) -> Self {
        Self {
            quota,
            since: now,
            asked: 0,
            is_asking: false,
            lease: None,
            next: FIRST,
            ended: SmallVec::new(),
        }
    }

    /// Under another quota a lease is none.
    fn change(&mut self, quota: Quota, now: Duration) {
        self.end_lease();
        (self.quota, self.since, self.asked, self.next) = (quota, now, 0, FIRST);
    }

    /// Admits a request by the lease.
    fn spend(&mut self, now: Duration) -> Option<Decision> {
        let lease = self.lease.as_mut()?;
        if now >= lease.until {
            self.next = (self.next / 2).max(FIRST);
            self.end_lease();
            return None;
        }
        lease.left -= 1;
        let Lease { left, since, decision, rest, .. } = *lease;
        if left == 0 {
            self.next = (self.next * 2).min(MOST);
            self.lease = None;
        }
        Some(decision.later(now.saturating_sub(since)).with_remaining(rest + left))
    }

    fn end_lease(&mut self) {
        if let Some(Lease { left: left @ 1.., mark, wanted, .. }) = self.lease.take() {
            self.ended.push(Ended { left, mark, wanted });
        }
    }
}

/// One that asks for a lease. Nobody else does meanwhile.
#[derive(Debug)]
pub(super) struct Asking {
    key: Arc<Key>,
    pub(super) wanted: Wanted,
    is_out: bool,
}

impl Asking {
    /// What is left of leases that have ended: to be given back.
    pub(super) fn ended(&self) -> SmallVec<[Ended; 1]> {
        std::mem::take(&mut self.key.state().ended)
    }

    /// The server has answered a question of `asked`. How long the lease lasts from now on, if it
    /// granted one.
    pub(super) fn granted(
        &mut self,
        found: &Found,
        asked: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let mut state = self.key.state();
        (state.is_asking, self.is_out) = (false, false);
        if found.granted < 2 {
            // Near the limit each is asked about.
            (state.since, state.asked, state.next) = (now, 0, FIRST);
            return None;
        }
        let lasts = Duration::from_micros(self.wanted.micros);
        let until = asked + lasts - lasts / UNSPENT;
        // The request itself is the first of them.
        let left = found.granted - 1;
        state.end_lease();
        state.lease = Some(Lease {
            left,
            since: now,
            until,
            decision: found.decision,
            rest: found.decision.remaining().saturating_sub(left),
            mark: found.mark.0.saturating_add(self.wanted.micros),
            wanted: self.wanted,
        });
        Some(until.saturating_sub(now))
    }

    /// A lease's time is over: what is left of leases that have ended.
    pub(super) fn end(&self, now: Duration) -> SmallVec<[Ended; 1]> {
        let mut state = self.key.state();
        if state.lease.as_ref().is_some_and(|lease| now >= lease.until) {
            state.end_lease();
        }
        std::mem::take(&mut state.ended)
    }
}

impl Drop for Asking {
    /// There is no answer.
    fn drop(&mut self) {
        if self.is_out {
            self.key.state().is_asking = false;
        }
    }
}
