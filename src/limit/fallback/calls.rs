//! [`Calls`]: how a store's calls to its backend fare, apart from what waits for them here.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

/// In how many steps the time of a call is counted.
const STEPS: u32 = 5;

/// How a store's last calls to its backend fared: what tells a backend that is gone from one that
/// is late because much is asked of it.
///
/// A store that has a queue of its own keeps one of these, hands it out
/// ([`RateLimitStore::calls`](super::RateLimitStore::calls)), and lets it [time](Self::time) each
/// call. Then a [`FallbackStore`](super::FallbackStore) around it gives it up for its calls, not for
/// the time that decisions wait in that queue. Clones are one.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    budget_us: AtomicU64,
    /// How many have failed, or taken longer than the budget, one after the other.
    failed: AtomicU32,
}

impl Calls {
    /// None yet, and a budget of 25 ms for each.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner { budget_us: AtomicU64::new(25_000), failed: AtomicU32::new(0) }))
    }

    /// Waits for a call, `patience` at most: `None` where that has passed. `late` is told when the
    /// call has taken longer than the budget.
    ///
    /// Time is counted in steps, each of which lets other tasks have their turn. In a process that
    /// is too busy to look at an answer that lies there a step takes longer than it should, and
    /// counts as no more than it should: so what is timed is the backend, not ourselves.
    pub async fn time<T, E>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, E>>,
        late: impl FnOnce(),
    ) -> Option<Result<T, E>> {
        let mut call = pin!(call);
        let step = self.budget() / STEPS;
        let (mut late, mut steps) = (Some(late), 0);
        loop {
            match timeout(step, call.as_mut()).await {
                Ok(result) => {
                    // One that took too long has been noted as such.
                    if late.is_some() {
                        self.note(result.is_ok());
                    }
                    return Some(result);
                }
                Err(_) => steps += 1,
            }
            if steps >= STEPS
                && let Some(late) = late.take()
            {
                self.note(false);
                late();
            }
            if step * steps >= patience {
                return None;
            }
        }
    }

    /// How many calls have failed, or taken longer than the budget, one after the other.
    #[must_use]
    pub fn failed_in_a_row(&self) -> u32 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, in_time: bool) {
        match in_time {
            true => self.forgive(),
            false => _ = self.0.failed.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn forgive(&self) {
        // Mostly it is 0 already: a line that many cores read.
        if self.failed_in_a_row() > 0 {
            self.0.failed.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn budget(&self) -> Duration {
        Duration::from_micros(self.0.budget_us.load(Ordering::Relaxed))
    }

    pub(super) fn set_budget(&self, budget: Duration) {
        // A step of nothing would never let anybody else have a turn.
        let budget = budget.max(Duration::from_millis(1));
        self.0.budget_us.store(budget.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self::new()
    }
}
