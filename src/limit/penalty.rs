//! Longer waits for clients that keep asking.

use std::{fmt, sync::Arc, time::Duration};

use quick_cache::sync::Cache;

use super::{Decision, Key, Quota};

/// A wait that grows for clients that keep asking after refusals. Off unless a rule is given one.
///
/// So many refusals are free. Each further one, those during the wait too, doubles the wait, from the
/// shortest to the longest. A client that was not refused for `longest` starts over. While a client
/// waits the store isn't asked at all, and `Retry-After` tells the wait.
///
/// Waits are known to this process alone, of the last 10,000 clients that were refused. Clones share
/// them.
///
/// ```
/// use std::time::Duration;
/// use tower_warden::{Quota, Rule, limit::Penalty};
/// let penalty = Penalty::new(5, Duration::from_secs(10), Duration::from_secs(600));
/// let rule = Rule::per_ip("ip", Quota::per_minute(100)).with_penalty(penalty);
/// ```
#[derive(Clone)]
pub struct Penalty {
    free: u32,
    shortest: Duration,
    longest: Duration,
    strikes: Arc<Cache<Key, Strikes>>,
}

/// Refusals of one client.
#[derive(Clone, Copy)]
struct Strikes {
    count: u32,
    last: Duration,
    /// Until when it waits.
    until: Duration,
}

const REMEMBERED: usize = 10_000;

impl Penalty {
    /// After so many refusals that are free, from this wait to that.
    #[must_use]
    pub fn new(free: u32, shortest: Duration, longest: Duration) -> Self {
        let strikes = Arc::new(Cache::new(REMEMBERED));
        Self { free, shortest, longest: longest.max(shortest), strikes }
    }

    /// The refusal of who has to wait, at this moment of the stopwatch.
    pub(super) fn wait(&self, key: &Key, quota: Quota, now: Duration) -> Option<Decision> {
        let wait = self.strikes.get(key)?.until.checked_sub(now).filter(|wait| !wait.is_zero())?;
        Some(Decision::refused(quota, 0, wait, Some(wait)))
    }

    /// The same, counted as another knock.
    pub(super) fn knock(&self, key: &Key, quota: Quota, now: Duration) -> Option<Decision> {
        let waits = self.wait(key, quota, now)?;
        let longer = self.strike(key, now);
        Some(longer.map_or(waits, |wait| Decision::refused(quota, 0, wait, Some(wait))))
    }

    /// Counts a refusal; how long to wait, where it wasn't a free one.
    pub(super) fn strike(&self, key: &Key, now: Duration) -> Option<Duration> {
        let known = self.strikes.get(key);
        let known = known
            .filter(|strikes| strikes.last.max(strikes.until).saturating_add(self.longest) > now);
        let count = known.map_or(0, |strikes| strikes.count).saturating_add(1);
        let beyond = count.checked_sub(self.free).and_then(|beyond| beyond.checked_sub(1));
        let wait = beyond.map(|doublings| {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            self.shortest.saturating_mul(factor).min(self.longest)
        });
        let until = now.saturating_add(wait.unwrap_or_default());
        self.strikes.insert(key.clone(), Strikes { count, last: now, until });
        wait
    }
}

impl fmt::Debug for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { free, shortest, longest, .. } = self;
        write!(f, "Penalty(after {free} refusals from {shortest:?} to {longest:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_within_bounds_and_is_forgiven() {
        let second = Duration::from_secs(1);
        let penalty = Penalty::new(1, second, 5 * second);
        let key = Key::from("client");
        let mut now = Duration::from_secs(100);
        let waits: Vec<_> = (0..5).map(|_| penalty.strike(&key, now)).collect();
        assert_eq!(
            waits,
            [None, Some(second), Some(2 * second), Some(4 * second), Some(5 * second)]
        );
        let quota = Quota::per_minute(1);
        assert_eq!(penalty.knock(&key, quota, now).unwrap().retry_after(), Some(5 * second));
        now += 5 * second;
        assert!(penalty.knock(&key, quota, now).is_none());
        assert_eq!(penalty.strike(&key, now), Some(5 * second));
        now += 10 * second;
        assert_eq!(penalty.strike(&key, now), None);
    }
}
