//! The arithmetic of the sliding window: pure, in integers, without a clock. [`Log`] tells it all.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Decision, Mark, Quota};

/// How many entries a [`Log`] has, about, unless a store is configured otherwise.
pub const RESOLUTION: u32 = 64;

/// How long a request counted on trial is taken for one still in flight. Who holds longer (a
/// server that was killed, too) has counted it for good, as far as others are told when to retry.
pub const IN_FLIGHT: Duration = Duration::from_secs(60);

/// What one limiter remembers of one client: when it admitted how many, oldest first.
///
/// A limit is a promise: in any window of its length, wherever that begins, no more than the limit
/// is admitted. A [`Log`] keeps that promise by remembering *when* requests were admitted:
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
/// use portcullis::limit::{Log, Quota};
/// use std::time::Duration;
/// let (quota, mut log) = (Quota::per_second(1), Log::default());
/// assert!(log.take(0, &quota, 1, 64).allowed);
/// let refused = log.take(400_000, &quota, 1, 64);
/// assert_eq!(refused.retry_after, Some(Duration::from_millis(600)));
/// assert!(log.take(1_000_000, &quota, 1, 64).allowed);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// When the newest entry was opened: what decides which requests join it.
    opened: u64,
    /// The sum of the live counts.
    used: u64,
    /// The part of it that is on trial.
    held: u32,
    /// How many entries at the front have left the window. They are dropped many at a time: to close
    /// the gap after each costs more than all else here.
    dead: u32,
    /// In the order of their instants, which are all different.
    entries: SmallVec<[Entry; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the last request of this entry was admitted.
    at: u64,
    /// The cost of all of them.
    count: u32,
    /// The part of it that is on trial.
    held: u32,
}

impl Log {
    /// Decides a request of this cost, and counts it where it is admitted.
    pub fn take(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) -> Decision {
        self.advance(now, quota);
        if !self.has_room(quota, cost) {
            return self.decide(now, quota, cost);
        }
        self.admit(now, quota, cost, resolution, false);
        self.decide(now, quota, 0)
    }

    /// Drops what has left the window, and pulls back to `now` what is later than that.
    pub fn advance(&mut self, now: u64, quota: &Quota) {
        while let Some(&oldest) = self.live().first()
            && !is_live(&oldest, now, quota)
        {
            self.used -= u64::from(oldest.count);
            self.held -= oldest.held;
            self.dead += 1;
        }
        let dead = self.dead as usize;
        if dead == self.entries.len() {
            self.entries.clear();
            self.dead = 0;
        } else if dead >= 32 || dead > self.entries.len() / 2 {
            self.entries.drain(..dead);
            self.dead = 0;
        }
        if self.entries.last().is_some_and(|newest| newest.at > now) {
            self.pull_back(now);
        }
    }

    /// How a request of this cost stands; counts nothing. Expects a log that was
    /// [advanced](Self::advance) to now.
    #[must_use]
    pub fn decide(&self, now: u64, quota: &Quota, cost: u32) -> Decision {
        let leaves = |entry: &Entry| Duration::from_micros(entry.at + quota.window_us() - now);
        let (limit, cost_64) = (u64::from(quota.limit()), u64::from(cost));
        let allowed = self.has_room(quota, cost);
        let retry_after = if allowed || cost_64 > limit {
            None
        } else {
            let needed = self.used + cost_64 - limit;
            let room = self.leaver(needed).map_or(quota.window(), leaves);
            let only_in_flight = self.in_flight(now) >= needed;
            Some(if only_in_flight { room.min(Duration::from_secs(1)) } else { room })
        };
        Decision {
            allowed,
            quota: *quota,
            // Not above the limit, which is 32 bits wide.
            remaining: limit.saturating_sub(self.used) as u32,
            reset_after: self.live().first().map_or(Duration::ZERO, leaves),
            retry_after,
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
        if cost == 0 {
            return Mark(now);
        }
        let held = if hold { cost } else { 0 };
        self.used += u64::from(cost);
        self.held += held;
        match self.entries.last_mut() {
            // What is at the same instant always joins, as a mark is found by it.
            Some(newest) if now - self.opened < span(quota, resolution) || newest.at == now => {
                newest.at = now;
                newest.count += cost;
                newest.held += held;
            }
            _ => {
                self.opened = now;
                self.entries.push(Entry { at: now, count: cost, held });
            }
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
        // Entries don't overlap, so the one that the request joined is the first that ends no
        // earlier; one that ends much later began after it, in a log that had forgotten it.
        let first = self.dead as usize;
        let Some(index) = self.live().iter().position(|entry| entry.at >= mark.0) else { return };
        let entry = &mut self.entries[first + index];
        if entry.at - mark.0 >= span(quota, resolution) || entry.held < cost {
            return;
        }
        entry.held -= cost;
        self.held -= cost;
        if !keep {
            entry.count -= cost;
            self.used -= u64::from(cost);
        }
        if entry.count == 0 {
            self.entries.remove(first + index);
            // Whatever entry is the newest now was opened earlier: nothing later may join it.
            self.opened = 0;
        }
    }

    /// Whether nothing is counted at this moment.
    #[must_use]
    pub fn is_idle(&self, now: u64, quota: &Quota) -> bool {
        self.live().last().is_none_or(|newest| !is_live(newest, now, quota))
    }

    fn live(&self) -> &[Entry] {
        &self.entries[self.dead as usize..]
    }

    fn has_room(&self, quota: &Quota, cost: u32) -> bool {
        cost == 0 || self.used + u64::from(cost) <= u64::from(quota.limit())
    }

    fn pull_back(&mut self, now: u64) {
        let first = self.entries.partition_point(|entry| entry.at < now).max(self.dead as usize);
        let mut merged = Entry { at: now, count: 0, held: 0 };
        for entry in self.entries.drain(first..) {
            merged.count = merged.count.saturating_add(entry.count);
            merged.held = merged.held.saturating_add(entry.held);
        }
        self.entries.push(merged);
        self.opened = self.opened.min(now);
    }

    fn in_flight(&self, now: u64) -> u64 {
        if self.held == 0 {
            return 0;
        }
        let recent = |entry: &&Entry| now - entry.at < IN_FLIGHT.as_micros() as u64;
        self.live().iter().filter(recent).map(|entry| u64::from(entry.held)).sum()
    }

    /// The first entry with whose leaving so much has become free.
    fn leaver(&self, needed: u64) -> Option<&Entry> {
        let mut freed = 0;
        self.live().iter().find(|entry| {
            freed += u64::from(entry.count);
            freed >= needed
        })
    }
}

/// Requests that come within so many microseconds of one another share an entry.
fn span(quota: &Quota, resolution: u32) -> u64 {
    if quota.limit() > resolution {
        quota.window_us().div_ceil(u64::from(resolution.max(1)))
    } else {
        1
    }
}

fn is_live(entry: &Entry, now: u64, quota: &Quota) -> bool {
    entry.at + quota.window_us() > now
}

#[cfg(test)]
mod tests;
