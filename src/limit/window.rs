//! The arithmetic of the sliding window: pure, in integers, without a clock. [`SlidingWindow`] tells it all.

mod older;

use std::time::Duration;

use smallvec::SmallVec;

use self::older::Older;
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
/// 4. A refusal changes nothing, and names the first moment at which the same request is admitted.
/// 5. A request counted on trial is found again by its instant, and kept or given back. What is
///    given back is taken only from what is still held at that instant: never twice, never below
///    nothing, never from a newer window.
/// 6. An instant later than now (a clock stepped back) becomes now: it neither frees quota nor
///    locks anyone out for longer than `W`.
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
    /// When the last request of the newest entry was admitted; means nothing where none is counted.
    at: u64,
    /// When the newest entry was opened: what decides which requests join it.
    opened: u64,
    /// The sum of all counts. What the older entries don't have of it is the newest one's.
    used: u32,
    /// The logarithm of the window by which it was last counted, rounded up.
    window_log2: u8,
    /// How much of the limit was free then, in halvings: 0 where none was.
    room: u8,
    older: Older,
}

/// Requests that were admitted about the same time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the last of them was.
    at: u64,
    /// The cost of all of them.
    count: u32,
    /// The part of it that is on trial.
    held: u32,
}

/// Oldest first. In the order of their instants, which are all different.
type Entries = SmallVec<[Entry; 4]>;

impl SlidingWindow {
    /// Decides a request of this cost, and counts it where it is admitted.
    #[inline]
    pub fn take(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) -> Decision {
        self.advance(now, quota);
        if !self.has_room(quota, cost) {
            return self.refuse(now, quota, cost);
        }
        self.count(now, quota, cost, resolution);
        self.standing(now, quota)
    }

    /// Drops what has left the window, and pulls back to `now` what is later than that.
    #[inline]
    pub fn advance(&mut self, now: u64, quota: &Quota) {
        if self.oldest() + quota.window_us() <= now {
            self.drop_dead(now, quota);
        }
        if self.at > now {
            self.pull_back(now);
        }
    }

    /// How a request of this cost stands; counts nothing. Expects a log that was
    /// [advanced](Self::advance) to now.
    #[must_use]
    pub fn decide(&self, now: u64, quota: &Quota, cost: u32) -> Decision {
        if self.has_room(quota, cost) {
            self.standing(now, quota)
        } else {
            self.refuse(now, quota, cost)
        }
    }

    /// Counts a request that was admitted, on trial where `hold` says so; the mark finds it again.
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
            self.older.hold(now, cost);
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
        self.advance(now, quota);
        if mark.0.saturating_add(quota.window_us()) <= now {
            return;
        }
        let mut entries = self.entries();
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
        let mut opened = self.opened;
        if entry.count == 0 {
            entries.remove(index);
            // Whatever entry is the newest now was opened earlier: nothing later may join it.
            opened = 0;
        }
        self.replace(&entries, opened);
        self.note(quota);
    }

    /// Whether nothing is counted at this moment; for certain, and at most a window late.
    #[must_use]
    pub fn is_idle(&self, now: u64) -> bool {
        self.used == 0 || self.at + (1 << self.window_log2) <= now
    }

    /// How far it was from its limit when that last changed: 0 at the limit, 32 where most of it was
    /// free, and one less for each halving of what was.
    #[must_use]
    pub fn room(&self) -> u8 {
        self.room
    }

    /// When a request was last counted; 0 where none is.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        self.at
    }

    /// The instant of the oldest entry.
    #[inline]
    fn oldest(&self) -> u64 {
        self.older.oldest(self.at).min(self.at)
    }

    #[inline]
    fn has_room(&self, quota: &Quota, cost: u32) -> bool {
        cost == 0 || u64::from(self.used) + u64::from(cost) <= u64::from(quota.limit())
    }

    #[inline]
    fn count(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) {
        if cost == 0 {
            return;
        }
        // What is at the same instant always joins, as a mark is found by it.
        let joins = is_within_span(now - self.opened, quota, resolution) || self.at == now;
        if !joins || self.used == 0 {
            self.open(now);
        }
        if quota.window_us() > Older::REACH {
            self.older.spill(self.at);
        }
        self.at = now;
        self.used = self.used.saturating_add(cost);
        self.note(quota);
    }

    /// Notes what tells whether it may be forgotten.
    #[inline]
    fn note(&mut self, quota: &Quota) {
        self.window_log2 = (u64::BITS - quota.window_us().leading_zeros()) as u8;
        self.room = match quota.limit().saturating_sub(self.used) {
            0 => 0,
            free => (32 + quota.limit().leading_zeros() - free.leading_zeros()) as u8,
        };
    }

    /// Begins another entry.
    fn open(&mut self, now: u64) {
        if self.used > 0 {
            self.older.push(self.at, self.used - self.older.sum());
        }
        self.opened = now;
    }

    /// How the limit stands where there is room.
    #[inline]
    fn standing(&self, now: u64, quota: &Quota) -> Decision {
        let reset = if self.used > 0 { self.oldest() + quota.window_us() - now } else { 0 };
        Decision::in_micros(*quota, quota.limit().saturating_sub(self.used), reset)
    }

    #[cold]
    fn refuse(&self, now: u64, quota: &Quota, cost: u32) -> Decision {
        let standing = self.standing(now, quota);
        if cost > quota.limit() {
            return standing.refused_for(u64::MAX);
        }
        let needed = u64::from(self.used) + u64::from(cost) - u64::from(quota.limit());
        if needed == 1 && !self.older.is_on_trial() {
            // Each entry counts one at least, so that the oldest makes room.
            return standing.refused_for(self.oldest() + quota.window_us() - now);
        }
        let entries = self.entries();
        let room = leaver(&entries, needed).unwrap_or(now) + quota.window_us() - now;
        let only_in_flight = in_flight(&entries, now) >= needed;
        standing.refused_for(if only_in_flight { room.min(SECOND) } else { room })
    }

    #[cold]
    fn drop_dead(&mut self, now: u64, quota: &Quota) {
        while self.used > 0 && self.oldest() + quota.window_us() <= now {
            match self.older.pop() {
                Some(count) => self.used -= count,
                None => *self = Self::default(),
            }
        }
    }

    #[cold]
    fn pull_back(&mut self, now: u64) {
        let mut entries = self.entries();
        let later = entries.partition_point(|entry| entry.at < now);
        let mut merged = Entry { at: now, count: 0, held: 0 };
        for entry in entries.drain(later..) {
            merged.count += entry.count;
            merged.held += entry.held;
        }
        entries.push(merged);
        let opened = self.opened.min(now);
        self.replace(&entries, opened);
    }

    fn entries(&self) -> Entries {
        let mut entries = self.older.entries(self.at);
        if self.used > 0 {
            let (count, held) = (self.used - self.older.sum(), self.older.newest_held());
            entries.push(Entry { at: self.at, count, held });
        }
        entries
    }

    fn replace(&mut self, entries: &[Entry], opened: u64) {
        (self.used, self.opened, self.older) = (0, opened, Older::default());
        for entry in entries {
            if self.used > 0 {
                self.older.push(self.at, self.used - self.older.sum());
                if entry.at - self.oldest() > Older::REACH {
                    self.older.spill(self.at);
                }
            }
            self.at = entry.at;
            self.used += entry.count;
            if entry.held > 0 {
                self.older.hold(entry.at, entry.held);
            }
        }
    }
}

/// When the entry was admitted with whose leaving so much has become free.
fn leaver(entries: &[Entry], needed: u64) -> Option<u64> {
    let mut freed = 0;
    let leaver = entries.iter().find(|entry| {
        freed += u64::from(entry.count);
        freed >= needed
    });
    leaver.map(|entry| entry.at)
}

/// How much is on trial, of requests that may still be in flight.
fn in_flight(entries: &[Entry], now: u64) -> u64 {
    let recent = entries.iter().filter(|entry| now - entry.at < IN_FLIGHT.as_micros() as u64);
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
