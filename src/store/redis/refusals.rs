//! Refusals, remembered in this process: who hammers at a limit costs Redis next to nothing.
//!
//! A refusal names the instant at which there is room. Until then every request like it is refused
//! as well, and need not be asked about: the log is exact. Unless something is given back: so a
//! settle ends it, and where requests are taken on trial (elsewhere, too) it lasts a second at
//! most.
//!
//! Of a request under several limits one may refuse, and the others be asked by other requests: how
//! they stood is told for a second at most.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::quality::RandomState;
use quick_cache::sync::Cache;
use smallvec::{SmallVec, smallvec};

use super::script::Row;
use crate::{Quota, limit::Decision};

/// Who deletes a key to free a client shouldn't have to wait long.
const LONGEST: Duration = Duration::from_secs(10);
const LONGEST_ON_TRIAL: Duration = Duration::from_secs(1);
const LONGEST_OF_SEVERAL: Duration = Duration::from_secs(1);

/// In so many parts it is remembered when anything was last settled.
const PARTS: usize = 1024;

/// By the name of the key.
pub(super) struct Refusals {
    refusals: Cache<String, Refusal>,
    /// When a key of each part was last settled, in microseconds: what was asked earlier may have
    /// been decided earlier, whenever its answer comes.
    settled: Box<[AtomicU64]>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Refusal {
    standing: Standing,
    /// When it was known here, by a monotonic clock.
    since: Duration,
    until: Duration,
    /// The limits of the request that had room.
    others: Option<Arc<[(String, Standing)]>>,
}

/// How a limit stood, and for whom.
#[derive(Clone, Copy)]
struct Standing {
    quota: Quota,
    cost: u32,
    decision: Decision,
}

impl Standing {
    fn is_of(&self, row: &Row) -> bool {
        (self.quota, self.cost) == (row.quota, row.cost)
    }
}

impl Refusals {
    pub(super) fn new(capacity: usize) -> Self {
        let settled = (0..PARTS).map(|_| AtomicU64::new(0)).collect();
        Self { refusals: Cache::new(capacity), settled, hasher: RandomState::default() }
    }

    /// How a request under these limits is decided, where it is known to be refused still.
    pub(super) fn recall(&self, rows: &[Row], now: Duration) -> Option<SmallVec<[Decision; 2]>> {
        let of = |row: &Row| {
            let refusal = self.refusals.get(&row.key)?;
            (now < refusal.until && refusal.standing.is_of(row)).then_some(refusal)
        };
        let passed = |refusal: &Refusal| now.saturating_sub(refusal.since);
        if let [row] = rows {
            let refusal = of(row)?;
            return Some(smallvec![refusal.standing.decision.later(passed(&refusal))]);
        }
        let refusals: SmallVec<[_; 2]> = rows.iter().map(of).collect();
        let beside = |row: &Row| {
            refusals.iter().flatten().find_map(|refusal| {
                let mut others = refusal.others.iter().flat_map(|others| others.iter());
                let (_, other) = others.find(|(key, other)| *key == row.key && other.is_of(row))?;
                Some(other.decision.later(passed(refusal)))
            })
        };
        let decisions = rows.iter().zip(&refusals).map(|(row, refusal)| match refusal {
            Some(refusal) => Some(refusal.standing.decision.later(passed(refusal))),
            None => beside(row),
        });
        decisions.collect()
    }

    /// Remembers decisions on a request, those that are refusals. The server made them at some
    /// moment of the call: times are told from the end of it, and they are believed from the
    /// beginning, so that neither is wrong.
    pub(super) fn note(
        &self,
        rows: &[Row],
        decisions: &[Decision],
        asked: Duration,
        answered: Duration,
    ) {
        let standings = rows.iter().zip(decisions).map(|(row, decision)| {
            let standing = Standing { quota: row.quota, cost: row.cost, decision: *decision };
            (row, standing)
        });
        let (with_room, refused): (SmallVec<[_; 2]>, SmallVec<[_; 2]>) =
            standings.partition(|(_, standing)| standing.decision.is_allowed());
        let others: Option<Arc<[_]>> = (!with_room.is_empty())
            .then(|| with_room.iter().map(|(row, other)| (row.key.clone(), *other)).collect());
        for (row, standing) in refused {
            let Some(wait) = standing.decision.retry_after() else { continue };
            let longest = if row.flag { LONGEST_ON_TRIAL } else { LONGEST };
            let longest = if rows.len() > 1 { longest.min(LONGEST_OF_SEVERAL) } else { longest };
            let until = asked + wait.min(longest);
            let refusal = Refusal { standing, since: answered, until, others: others.clone() };
            self.refusals.insert(row.key.clone(), refusal);
            // After it is there, so that who settles meanwhile finds it, or is found.
            if self.settled(&row.key).load(Ordering::SeqCst) >= micros(asked) {
                self.refusals.remove(&row.key);
            }
        }
    }

    /// Something was settled at this key: there may be room.
    pub(super) fn forget(&self, key: &str, now: Duration) {
        self.settled(key).fetch_max(micros(now), Ordering::SeqCst);
        self.refusals.remove(key);
    }

    fn settled(&self, key: &str) -> &AtomicU64 {
        &self.settled[self.hasher.hash_one(key) as usize % PARTS]
    }
}

/// From 1: 0 is never.
fn micros(time: Duration) -> u64 {
    time.as_micros() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn row(limit: u32, flag: bool) -> Row {
        let quota = Quota::per_minute(limit);
        Row { key: "rl:ip:a".into(), quota, cost: 1, flag, mark: 0, lease: None }
    }

    fn refusal(wait: Duration) -> Decision {
        Decision::refused(Quota::per_minute(3), 0, wait, Some(wait))
    }

    #[test]
    fn a_refusal_is_remembered_until_its_instant_less_the_call() {
        let refusals = Refusals::new(10);
        refusals.note(&[row(3, false)], &[refusal(ms(500))], ms(1_000), ms(1_020));
        let later = refusals.recall(&[row(3, false)], ms(1_120)).unwrap()[0];
        assert_eq!((later.is_allowed(), later.retry_after()), (false, Some(ms(400))));
        assert!(refusals.recall(&[row(3, false)], ms(1_499)).is_some());
        assert!(refusals.recall(&[row(3, false)], ms(1_500)).is_none());
    }

    #[test]
    fn what_may_be_given_back_is_remembered_for_a_second_and_the_rest_for_ten() {
        for (flag, longest) in [(true, 1_000), (false, 10_000)] {
            let refusals = Refusals::new(10);
            refusals.note(&[row(3, flag)], &[refusal(ms(60_000))], ms(0), ms(5));
            assert!(refusals.recall(&[row(3, flag)], ms(longest - 1)).is_some());
            assert!(refusals.recall(&[row(3, flag)], ms(longest)).is_none());
        }
    }

    #[test]
    fn only_the_same_request_is_refused_and_only_until_something_is_settled() {
        let refusals = Refusals::new(10);
        refusals.note(&[row(3, false)], &[refusal(ms(500))], ms(0), ms(5));
        let lighter = Row { cost: 0, ..row(3, false) };
        assert!(refusals.recall(&[row(4, false)], ms(5)).is_none());
        assert!(refusals.recall(&[lighter], ms(5)).is_none());
        assert!(refusals.recall(&[row(3, false)], ms(5)).is_some());
        refusals.forget("rl:ip:a", ms(6));
        assert!(refusals.recall(&[row(3, false)], ms(5)).is_none());
    }

    #[test]
    fn there_may_be_no_memory() {
        let refusals = Refusals::new(0);
        refusals.note(&[row(3, false)], &[refusal(ms(500))], ms(0), ms(5));
        assert!(refusals.recall(&[row(3, false)], ms(5)).is_none());
    }

    #[test]
    fn of_several_limits_those_that_have_room_are_told_of_for_a_second() {
        let refusals = Refusals::new(10);
        let other = Row { key: "rl:user:a".into(), ..row(9, false) };
        let rows = [other.clone(), row(3, false)];
        let room = Decision::admitted(other.quota, 5, ms(40_000));
        refusals.note(&rows, &[room, refusal(ms(60_000))], ms(0), ms(5));
        let later = refusals.recall(&rows, ms(105)).unwrap();
        assert_eq!((later[0].is_allowed(), later[0].remaining()), (true, 5));
        assert_eq!(later[0].reset_after(), ms(39_900));
        assert_eq!(later[1].retry_after(), Some(ms(59_900)));
        assert!(refusals.recall(&rows, ms(999)).is_some());
        assert!(refusals.recall(&rows, ms(1_000)).is_none());
        assert!(refusals.recall(&[row(3, false)], ms(105)).is_some());
        let stranger = Row { key: "rl:user:b".into(), ..other };
        assert!(refusals.recall(&[stranger, row(3, false)], ms(105)).is_none());
    }

    #[test]
    fn what_was_asked_before_something_was_settled_is_not_remembered() {
        let refusals = Refusals::new(10);
        refusals.forget("rl:ip:a", ms(10));
        refusals.note(&[row(3, true)], &[refusal(ms(500))], ms(9), ms(11));
        assert!(refusals.recall(&[row(3, true)], ms(11)).is_none());
        refusals.note(&[row(3, true)], &[refusal(ms(500))], ms(11), ms(12));
        assert!(refusals.recall(&[row(3, true)], ms(12)).is_some());
    }
}
