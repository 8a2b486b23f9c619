//! What of a [`SlidingWindow`](super::SlidingWindow) most requests need: its sum, and when it began and ended.

use super::is_within_span;
use crate::limit::{Decision, Quota};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// When the last request of the newest entry was admitted; means nothing where none is counted.
    pub(crate) at: u64,
    /// When the newest entry was opened: what decides which requests join it.
    pub(crate) opened: u64,
    /// The instant of the oldest entry; that of the newest where there is no other.
    pub(crate) oldest: u64,
    /// How long entries are kept: the longest window by which any was counted since there are any. 0
    /// where none are.
    pub(crate) window: u64,
    /// The sum of all counts. What the older entries don't have of it is the newest one's.
    pub(crate) used: u32,
    /// How much of the limit was free when it was last counted, in halvings: 0 where none was.
    pub(crate) room: u8,
    /// Whether any request is on trial.
    pub(crate) held: bool,
}

/// What became of a request at the [`Head`] of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It only looked.
    Stands,
    /// It joined the newest entry.
    Counted,
    /// It was refused for so many microseconds.
    Refused(u64),
    /// Nothing: the whole log is needed.
    Whole,
}

/// The entries before the newest, of which nothing is on trial, where they are kept as words: half an
/// instant each, and a count. What is changed and then not [counted](Step::Counted) is thrown away.
pub(crate) trait Past {
    /// The sum of their counts.
    fn sum(&self) -> u32;
    /// Drops the oldest: how much it counted, and the half of the next one's instant, if there is one.
    fn pop(&mut self) -> Option<(u32, Option<u32>)>;
    /// Appends one. `false`, and nothing is changed, where there is no room for it.
    fn push(&mut self, at: u32, count: u32) -> bool;
    /// Drops all. `false` where that takes more.
    fn clear(&mut self) -> bool;
}

impl Head {
    /// Decides a request that no older entry matters to, and counts it where it is admitted.
    ///
    /// Never panics, whatever stands here: it may have been read while it was changed, and what comes of
    /// that is thrown away. Sums of instants wrap for that reason only.
    #[inline(always)]
    pub(crate) fn step(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32) -> Step {
        let window = quota.window_us();
        let leaves = self.oldest.wrapping_add(window);
        // Of another window (of none, where nothing is counted), or something leaves.
        if self.window != window || leaves <= now || self.at > now {
            return Step::Whole;
        }
        let (used, limit) = (u64::from(self.used) + u64::from(cost), u64::from(quota.limit()));
        if cost == 0 {
            return Step::Stands;
        }
        if used > limit {
            // Each entry counts one at least, so that the oldest makes room for one more.
            let oldest_makes_room = used - limit == 1 && !self.held;
            return if oldest_makes_room { Step::Refused(leaves - now) } else { Step::Whole };
        }
        let joins =
            self.at == now || is_within_span(now.wrapping_sub(self.opened), quota, resolution);
        if !joins {
            return Step::Whole;
        }
        if self.oldest == self.at {
            self.oldest = now;
        }
        self.at = now;
        self.used = used as u32;
        self.note(quota);
        Step::Counted
    }

    /// Counts a request as the whole log would, where entries leave or one begins, and no more than that
    /// happens: anything else, a refusal too, is [`Step::Whole`]. The log must stand still meanwhile.
    ///
    /// The rules are [`SlidingWindow`](super::SlidingWindow)'s `advance`, `decide` and `count`.
    #[inline(always)]
    pub(crate) fn begin(
        &mut self,
        past: &mut impl Past,
        now: u64,
        quota: &Quota,
        cost: u32,
        resolution: u32,
    ) -> Step {
        let window = quota.window_us();
        if self.window != window || self.at > now || self.held || cost == 0 || cost > quota.limit()
        {
            return Step::Whole;
        }
        if self.at + window <= now {
            // The newest leaves too: a log that begins.
            if !past.clear() {
                return Step::Whole;
            }
            *self = Self { at: now, opened: now, oldest: now, used: cost, ..*self };
            self.note(quota);
            return Step::Counted;
        }
        while self.oldest + window <= now {
            let Some((count, next)) = past.pop() else { return Step::Whole };
            self.used -= count;
            self.oldest = next.map_or(self.at, |low| before(self.at, low));
        }
        if u64::from(self.used) + u64::from(cost) > u64::from(quota.limit()) {
            return Step::Whole;
        }
        if self.at != now && !is_within_span(now - self.opened, quota, resolution) {
            if !past.push(self.at as u32, self.used - past.sum()) {
                return Step::Whole;
            }
            self.opened = now;
        } else if self.oldest == self.at {
            self.oldest = now;
        }
        self.at = now;
        self.used += cost;
        self.note(quota);
        Step::Counted
    }

    /// How the limit stands, of whose window it is.
    #[inline(always)]
    pub(crate) fn standing(&self, now: u64, quota: &Quota) -> Decision {
        let reset = self.oldest.wrapping_add(quota.window_us()).wrapping_sub(now);
        Decision::in_micros(*quota, quota.limit().saturating_sub(self.used), reset)
    }

    /// Notes what tells whether it may be forgotten.
    #[inline(always)]
    pub(crate) fn note(&mut self, quota: &Quota) {
        self.room = match quota.limit().saturating_sub(self.used) {
            0 => 0,
            free => (32 + quota.limit().leading_zeros() - free.leading_zeros()) as u8,
        };
    }

    #[inline(always)]
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        self.used == 0 || self.at.wrapping_add(self.window) <= now
    }
}

/// The last instant before this one, or this one, that has this lower half.
#[inline(always)]
pub(crate) fn before(at: u64, low: u32) -> u64 {
    at.wrapping_sub(u64::from((at as u32).wrapping_sub(low)))
}
