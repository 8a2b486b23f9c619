//! Who asks a store that is gone: nobody but a probe.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout};

use super::calls::Calls;
use crate::{
    StoreError,
    limit::{RateLimitStore, store::Take},
    signals,
};

/// After so many failures in a row nobody waits any more.
pub(super) const FAILURES: u32 = 3;
/// How often it is asked then whether the store is back.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The longest that such a question waits: time to connect anew.
const PROBE_WAITS: Duration = Duration::from_millis(500);

/// Open while the store is gone.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: AtomicBool,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Opens where too many calls have failed; then a probe looks at these until the store is back.
    pub(super) fn check(
        self: &Arc<Self>,
        calls: &Calls,
        store: &Arc<dyn RateLimitStore>,
        takes: &[Take],
        error: &StoreError,
    ) {
        if calls.failed_in_a_row() < FAILURES || self.open.swap(true, Ordering::Relaxed) {
            return;
        }
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "the store of the limits is gone; nobody waits for it now");
        signals::limit_breaker(true);
        let open = Open { breaker: Arc::clone(self), calls: calls.clone() };
        let looks = takes.iter().map(look).collect();
        tokio::spawn(probe(Arc::downgrade(store), looks, open));
    }
}

/// The same request, only to look.
pub(super) fn look(take: &Take) -> Take {
    Take { cost: 0, hold: false, ..take.clone() }
}

/// Closes the breaker when it is dropped: when the store is back, and also where the probe ends
/// otherwise (its runtime is shut down, the store panics), for nobody else would close it.
struct Open {
    breaker: Arc<Breaker>,
    calls: Calls,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.calls.forgive();
        self.breaker.open.store(false, Ordering::Relaxed);
        signals::limit_breaker(false);
    }
}

/// Asks until the store answers in time, or is dropped.
async fn probe(store: Weak<dyn RateLimitStore>, takes: SmallVec<[Take; 2]>, open: Open) {
    loop {
        let asked = Instant::now();
        let Some(store) = store.upgrade() else { return };
        // The first answer may have had to wait for a connection; then the second tells.
        for _ in 0..2 {
            let start = Instant::now();
            match timeout(PROBE_WAITS, store.take(&takes)).await {
                Ok(Ok(_)) if start.elapsed() <= open.calls.budget() => {
                    tracing::info!("the store of the limits is back");
                    return;
                }
                Ok(Ok(_)) => {}
                _ => break,
            }
        }
        drop(store);
        sleep(PROBE_EVERY.saturating_sub(asked.elapsed())).await;
    }
}
