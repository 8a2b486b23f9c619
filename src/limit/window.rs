//! The arithmetic of the sliding window: pure, in integers, without a clock. [`SlidingWindow`] tells it all.

mod head;
mod older;

use std::time::Duration;

use smallvec::SmallVec;

pub(crate) use self::{
    head::{Head, Past, Step, before},
    older::{BRIEF_COUNT, Brief, FEW, Older, REACH},
};
use super::{Decision, Quota, store::Mark};

/// How many entries a [`SlidingWindow`] has, about, unless a store is configured otherwise.
pub const RESOLUTION: u32 = 64;

/// How long a request counted on trial is taken for one still in flight. Who holds longer (a
/// server that was killed, too) has counted it for good, as far as others are told when to retry.
pub const IN_FLIGHT: Duration = Duration::from_secs(60);

const SECOND: u64 = 1_000_000;

/// What one limiter remembers of one client: when it admitted how many, oldest first.
///
/// A limit is a promise: in any window of its length, wherever that begins, no more than the limit
/// is admitted. A [`SlidingWindow`] keeps that promise by remembering *when* requests were admitted:
///
/// 1. An entry is an instant and a count. It is live while `instant > now - W`: it leaves exactly
///    one window after it came.
/// 2. A request of cost `c` is admitted where the live counts sum to at most `L - c`.
/// 3. There are about as many entries as the resolution `M`, however high the limit. With `L <= M`
///    each instant has its own entry, and the window is exact. With `L > M` a request that comes
///    within `ceil(W / M)` of the moment the newest entry was opened joins it, and *moves its
///    instant to now*. Keeping the latest instant makes the error one-sided: never over `L`, and
///    room comes back at most `W / M` late.
/// 4. A refusal counts nothing, and names the first moment at which the same request is admitted.
/// 5. A request counted on trial is found again by its instant, and kept or given back. What is
///    given back is taken only from what is still held at that instant: never twice, never below
///    nothing, never from a newer window.
/// 6. An instant later than now (a clock stepped back) becomes now: it neither frees quota nor
///    locks anyone out for longer than `W`.
/// 7. Counted by quotas of several windows (a user's plan changes), entries are kept for the longest
///    of those, until none is left; each question counts what is live in its own window. What has
///    left the window of the quota that counts is kept in `M` entries of the longest, about, so that
///    room in that one may come back another `W / M` late.
///
/// Instants are microseconds since any fixed moment. The twin of this file for Redis is
/// `store/redis/window.lua`; one suite of tests runs over both.
///
/// ```
/// use tower_warden::{Quota, limit::store::SlidingWindow};
/// use std::time::Duration;
/// let (quota, mut log) = (Quota::per_second(1), SlidingWindow::default());
/// assert!(log.take(0, &quota, 1, 64).is_allowed());
/// let refused = log.take(400_000, &quota, 1, 64);
/// assert_eq!(refused.retry_after(), Some(Duration::from_millis(600)));
/// assert!(log.take(1_000_000, &quota, 1, 64).is_allowed());
/// ```
#[derive(Clone, Debug, Default)]
pub struct SlidingWindow {
    pub(crate) head: Head,
    /// The entries before the newest.
    pub(crate) older: Older,
}

/// Requests that were admitted about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the last of them was.
    pub(crate) at: u64,
    /// The cost of all of them.
    pub(crate) count: u32,
    /// The part of it that is on trial.
    held: u32,
}

/// Oldest first. In the order of their instants, which are all different.
type Entries = SmallVec<[Entry; 5]>;

impl SlidingWindow {
    /// Decides a request of this cost, and counts it where it is admitted.
    pub fn take(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) -> Decision {
        match self.head.step(now, quota, cost, resolution) {
            Step::Stands | Step::Counted => self.head.standing(now, quota),
            Step::Refused(wait) => self.head.standing(now, quota).refused_for(wait),
            Step::Whole => {
                self.advance(now);
                let decision = self.decide(now, quota, cost);
                if !decision.is_allowed() {
                    return decision;
                }
                self.count(now, quota, cost, resolution);
                self.decide(now, quota, 0)
            }
        }
    }

    /// Drops what has left the window, and pulls back to `now` what is later than that.
    #[inline]
    pub fn advance(&mut self, now: u64) {
        while self.head.oldest + self.head.window <= now && self.head.used > 0 {
            match self.older.pop(self.head.at) {
                Some(entry) => {
                    self.head.used -= entry.count;
                    self.head.oldest = self.older.oldest(self.head.at);
                }
                None => *self = Self::default(),
            }
        }
        self.head.held = self.older.is_on_trial();
        if self.head.at > now {
            self.pull_back(now);
        }
    }

    /// How a request of this cost stands; counts nothing. Expects a log that was
    /// [advanced](Self::advance) to now.
    #[must_use]
    #[inline]
    pub fn decide(&self, now: u64, quota: &Quota, cost: u32) -> Decision {
        let (used, oldest) = self.live(now, quota);
        let reset = if used > 0 { oldest + quota.window_us() - now } else { 0 };
        let standing = Decision::in_micros(*quota, quota.limit().saturating_sub(used), reset);
        if cost == 0 || u64::from(used) + u64::from(cost) <= u64::from(quota.limit()) {
            return standing;
        }
        standing.refused_for(self.wait(now, quota, cost, used))
    }

    /// Counts a request that was admitted, on trial where `hold` says so; the mark finds it again.
    #[inline]
    pub fn admit(
        &mut self,
        now: u64,
        quota: &Quota,
        cost: u32,
        resolution: u32,
        hold: bool,
    ) -> Mark {
        self.count(now, quota, cost, resolution);
        if hold && cost > 0 {
            self.older.hold(self.head.at, cost);
            self.head.held = true;
        }
        Mark(now)
    }

    /// Ends the trial of a request of this cost: it counts (`keep`), or is given back.
    pub fn settle(
        &mut self,
        now: u64,
        quota: &Quota,
        cost: u32,
        resolution: u32,
        mark: Mark,
        keep: bool,
    ) {
        self.advance(now);
        if mark.0.saturating_add(quota.window_us()) <= now {
            return;
        }
        let mut entries: Entries = self.entries().collect();
        // Entries don't overlap, so the one that the request joined is the first that ends no
        // earlier; one that ends much later began after it, in a log that had forgotten it.
        let Some(index) = entries.iter().position(|entry| entry.at >= mark.0) else { return };
        let entry = &mut entries[index];
        let joined = entry.at == mark.0 || is_within_span(entry.at - mark.0, quota, resolution);
        if !joined || entry.held < cost {
            return;
        }
        entry.held -= cost;
        if !keep {
            entry.count -= cost;
        }
        let mut opened = self.head.opened;
        if entry.count == 0 {
            entries.remove(index);
            // Whatever entry is the newest now was opened earlier: nothing later may join it.
            opened = 0;
        }
        self.replace(&entries, opened);
        self.head.note(quota);
    }

    /// Whether nothing is counted at this moment; for certain, and at most a window late.
    #[must_use]
    pub fn is_idle(&self, now: u64) -> bool {
        self.head.is_idle(now)
    }

    /// How far it was from its limit when that last changed: 0 at the limit, 32 where most of it was
    /// free, and one less for each halving of what was.
    #[must_use]
    pub fn room(&self) -> u8 {
        self.head.room
    }

    /// How much is counted in the window of this quota, and since when.
    #[inline]
    fn live(&self, now: u64, quota: &Quota) -> (u32, u64) {
        if quota.window_us() >= self.head.window {
            return (self.head.used, self.head.oldest);
        }
        self.live_of_shorter(now, quota)
    }

    #[cold]
    fn live_of_shorter(&self, now: u64, quota: &Quota) -> (u32, u64) {
        let mut live = self.entries().filter(|entry| entry.at + quota.window_us() > now);
        let Some(first) = live.next() else { return (0, now) };
        (live.fold(first.count, |sum, entry| sum.saturating_add(entry.count)), first.at)
    }

    /// How long until a request of this cost has room beside those `used`; `u64::MAX` for ever.
    #[cold]
    fn wait(&self, now: u64, quota: &Quota, cost: u32, used: u32) -> u64 {
        if cost > quota.limit() {
            return u64::MAX;
        }
        let needed = u64::from(used) + u64::from(cost) - u64::from(quota.limit());
        let entries = || self.entries().filter(|entry| entry.at + quota.window_us() > now);
        let room = leaver(entries(), needed).unwrap_or(now) + quota.window_us() - now;
        let only_in_flight = self.head.held && in_flight(entries(), now) >= needed;
        if only_in_flight { room.min(SECOND) } else { room }
    }

    #[inline]
    fn count(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) {
        if cost == 0 {
            return;
        }
        let head = &mut self.head;
        // What is at the same instant always joins, as a mark is found by it.
        let joins = is_within_span(now - head.opened, quota, resolution) || head.at == now;
        if head.used == 0 {
            *head = Head { opened: now, oldest: now, ..Head::default() };
        } else if !joins {
            self.older.push(head.at, head.used - self.older.sum());
            head.opened = now;
        } else if head.oldest == head.at {
            head.oldest = now;
        }
        head.window = head.window.max(quota.window_us());
        if head.window > REACH {
            self.older.spill(head.at);
        }
        head.at = now;
        head.used = head.used.saturating_add(cost);
        // Only quotas of several windows make so many: twice what one of them has, and half as much
        // again as is left then.
        let several_windows = quota.window_us() < self.head.window;
        if several_windows && self.older.len() > 6 * resolution as usize + 6 {
            self.thin(now, quota, resolution);
        }
        self.head.note(quota);
    }

    /// Merges what has left the window of this quota to what the longest one needs.
    #[cold]
    fn thin(&mut self, now: u64, quota: &Quota, resolution: u32) {
        let opened = self.head.opened;
        // By spans that lie fixed: what was merged before gets no later by being merged again.
        let span = self.head.window.div_ceil(resolution.max(1).into());
        let mut thinner = Entries::new();
        for entry in self.entries() {
            let over = entry.at + quota.window_us() <= now;
            match thinner.last_mut() {
                Some(last)
                    if over
                        && last.held == 0
                        && entry.held == 0
                        && last.at / span == entry.at / span =>
                {
                    (last.at, last.count) = (entry.at, last.count.saturating_add(entry.count));
                }
                _ => thinner.push(entry),
            }
        }
        self.replace(&thinner, opened);
    }

    #[cold]
    fn pull_back(&mut self, now: u64) {
        let mut merged = Entry { at: now, count: 0, held: 0 };
        let mut entries = Entries::new();
        for entry in self.entries() {
            if entry.at < now {
                entries.push(entry);
            } else {
                merged.count += entry.count;
                merged.held += entry.held;
            }
        }
        entries.push(merged);
        self.replace(&entries, self.head.opened.min(now));
    }

    /// All that it is, for tests that compare two.
    #[cfg(test)]
    pub(crate) fn whole(&self) -> (Head, Vec<Entry>) {
        // Where nothing counts, a store may have forgotten the rest.
        if self.head.used == 0 {
            return Default::default();
        }
        // As far as anything may join it: a line knows no more.
        let opened = self.head.opened.max(self.head.at.saturating_sub(REACH));
        (Head { opened, ..self.head }, self.entries().collect())
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let newest = (self.head.used > 0).then(|| Entry {
            at: self.head.at,
            count: self.head.used - self.older.sum(),
            held: self.older.newest_held(),
        });
        self.older.entries(self.head.at).chain(newest)
    }

    fn replace(&mut self, entries: &[Entry], opened: u64) {
        let Head { window, room, .. } = self.head;
        *self = Self::default();
        let Some(first) = entries.first() else { return };
        self.head = Head { window, room, opened, oldest: first.at, ..Head::default() };
        for entry in entries {
            if self.head.used > 0 {
                self.older.push(self.head.at, self.head.used - self.older.sum());
                if window > REACH {
                    self.older.spill(self.head.at);
                }
            }
            self.head.at = entry.at;
            self.head.used += entry.count;
            if entry.held > 0 {
                self.older.hold(entry.at, entry.held);
            }
        }
        self.head.held = self.older.is_on_trial();
    }
}

/// When the entry was admitted with whose leaving so much has become free.
fn leaver(mut entries: impl Iterator<Item = Entry>, needed: u64) -> Option<u64> {
    let mut freed = 0;
    let leaver = entries.find(|entry| {
        freed += u64::from(entry.count);
        freed >= needed
    });
    leaver.map(|entry| entry.at)
}

/// How much is on trial, of requests that may still be in flight.
fn in_flight(entries: impl Iterator<Item = Entry>, now: u64) -> u64 {
    let recent = entries.filter(|entry| now - entry.at < IN_FLIGHT.as_micros() as u64);
    recent.map(|entry| u64::from(entry.held)).sum()
}

/// Whether requests so far apart share an entry: within `ceil(W / M)`, where the limit is above the
/// resolution M.
#[inline]
fn is_within_span(apart: u64, quota: &Quota, resolution: u32) -> bool {
    let coalesces = quota.limit() > resolution;
    // The same as apart < ceil(W / M), without the division.
    coalesces && apart.saturating_mul(u64::from(resolution.max(1))) < quota.window_us()
}

#[cfg(test)]
mod tests;
