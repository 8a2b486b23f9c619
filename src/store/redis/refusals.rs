//! Refusals, remembered in this process: who hammers at a limit costs Redis next to nothing.
//!
//! A refusal names the instant at which there is room. Until then every request like it is refused
//! as well, and need not be asked about: the log is exact. Unless something is given back: so a
//! settle ends it, and where requests are taken on trial (elsewhere, too) it lasts a second at
//! most.

use std::time::Duration;

use quick_cache::sync::Cache;

use super::script::Row;
use crate::{Quota, limit::Decision};

/// Who deletes a key to free a client shouldn't have to wait long.
const LONGEST: Duration = Duration::from_secs(10);
const LONGEST_ON_TRIAL: Duration = Duration::from_secs(1);

/// By the name of the key.
#[derive(Debug)]
pub(super) struct Refusals(Cache<String, Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    quota: Quota,
    cost: u32,
    decision: Decision,
    /// When it was known here, by a monotonic clock.
    since: Duration,
    until: Duration,
}

impl Refusals {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// The decision on this row, where it is known to be a refusal still.
    pub(super) fn recall(&self, row: &Row, now: Duration) -> Option<Decision> {
        let refusal = self.0.get(&row.key)?;
        if now >= refusal.until || (refusal.quota, refusal.cost) != (row.quota, row.cost) {
            return None;
        }
        let passed = now.saturating_sub(refusal.since);
        Some(refusal.decision.later(passed))
    }

    /// Remembers a decision if it is a refusal. The server made it at some moment of the call:
    /// times are told from the end of it, and it is believed from the beginning, so that neither is
    /// wrong.
    pub(super) fn note(&self, row: &Row, decision: Decision, asked: Duration, answered: Duration) {
        if let Some(wait) = decision.retry_after() {
            let longest = if row.flag { LONGEST_ON_TRIAL } else { LONGEST };
            let until = asked + wait.min(longest);
            let (quota, cost) = (row.quota, row.cost);
            let refusal = Refusal { quota, cost, decision, since: answered, until };
            self.0.insert(row.key.clone(), refusal);
        }
    }

    pub(super) fn forget(&self, key: &str) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn row(limit: u32, flag: bool) -> Row {
        let quota = Quota::per_minute(limit);
        Row { key: "rl:ip:a".into(), quota, cost: 1, flag, mark: 0 }
    }

    fn refusal(wait: Duration) -> Decision {
        Decision::refused(Quota::per_minute(3), 0, wait, Some(wait))
    }

    #[test]
    fn a_refusal_is_remembered_until_its_instant_less_the_call() {
        let refusals = Refusals::new(10);
        refusals.note(&row(3, false), refusal(ms(500)), ms(1_000), ms(1_020));
        let later = refusals.recall(&row(3, false), ms(1_120)).unwrap();
        assert_eq!((later.is_allowed(), later.retry_after()), (false, Some(ms(400))));
        assert!(refusals.recall(&row(3, false), ms(1_499)).is_some());
        assert!(refusals.recall(&row(3, false), ms(1_500)).is_none());
    }

    #[test]
    fn what_may_be_given_back_is_remembered_for_a_second_and_the_rest_for_ten() {
        for (flag, longest) in [(true, 1_000), (false, 10_000)] {
            let refusals = Refusals::new(10);
            refusals.note(&row(3, flag), refusal(ms(60_000)), ms(0), ms(5));
            assert!(refusals.recall(&row(3, flag), ms(longest - 1)).is_some());
            assert!(refusals.recall(&row(3, flag), ms(longest)).is_none());
        }
    }

    #[test]
    fn only_the_same_request_is_refused_and_only_until_something_is_settled() {
        let refusals = Refusals::new(10);
        refusals.note(&row(3, false), refusal(ms(500)), ms(0), ms(5));
        let lighter = Row { cost: 0, ..row(3, false) };
        assert!(refusals.recall(&row(4, false), ms(5)).is_none());
        assert!(refusals.recall(&lighter, ms(5)).is_none());
        assert!(refusals.recall(&row(3, false), ms(5)).is_some());
        refusals.forget("rl:ip:a");
        assert!(refusals.recall(&row(3, false), ms(5)).is_none());
    }

    #[test]
    fn there_may_be_no_memory() {
        let refusals = Refusals::new(0);
        refusals.note(&row(3, false), refusal(ms(500)), ms(0), ms(5));
        assert!(refusals.recall(&row(3, false), ms(5)).is_none());
    }
}
