//! [`FallbackStore`]: no request waits long for a store, nor at all for one that is gone.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Decision, Key, LimiterName, Quota, RateLimitStore,
    store::{Decisions, Hold, Mark, Take},
};
use crate::{Answer, SharedClock, StoreError, signals};

/// After so many failures in a row nobody waits any more.
const FAILURES: u32 = 3;
/// How often it is asked then whether the store is back.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The longest that such a question waits: time to connect anew.
const PROBE_WAITS: Duration = Duration::from_millis(500);
/// What tells a hold of the local store. Instants in microseconds never reach it.
const LOCAL: u64 = 1 << 63;

/// A store around a store that may be slow or gone, such as Redis.
///
/// 1. A decision has a budget, connecting included: 25 ms unless [set](Self::with_budget). One
///    that takes longer has failed, and so has any answer that is not a decision.
/// 2. After three failures in a row nobody waits at all. Twice a second, in the background, the
///    store is asked whether it is back: whether it answers within the budget. It is used again
///    within a second of its return.
/// 3. What is decided meanwhile is a choice:
///    - *allow*, *deny*: without a local store failures come back as
///      [`StoreError::unavailable`], and [`OnFailure`](super::OnFailure) of the layer lets requests
///      pass or refuses them;
///    - *local*: a [local store](Self::with_local) decides, as a rule one in this process. It is
///      kept warm: what the shared store admits is counted there too, so that an outage is no new
///      start. With [several replicas](Self::with_replicas) of the server each grants its share of
///      the limit, and a decision tells of this share.
///
/// "Limit exceeded" is a decision and no failure. A request whose answer came too late may have
/// been counted; it isn't asked again.
///
/// ```
/// use tower_warden::{limit::FallbackStore, store::memory::MemoryRateLimitStore};
/// use std::{num::NonZeroU32, time::Duration};
/// # let shared = MemoryRateLimitStore::new();
/// let store = FallbackStore::new(shared)
///     .with_budget(Duration::from_millis(10))
///     .with_local(MemoryRateLimitStore::new())
///     .with_replicas(NonZeroU32::new(3).unwrap());
/// assert!(!store.is_open());
/// ```
#[derive(Clone)]
pub struct FallbackStore {
    store: Arc<dyn RateLimitStore>,
    local: Option<Local>,
    breaker: Arc<Breaker>,
    budget: Duration,
}

impl FallbackStore {
    /// Around this store, with a budget of 25 ms and no local store.
    #[must_use]
    pub fn new(store: impl RateLimitStore) -> Self {
        Self {
            store: Arc::new(store),
            local: None,
            breaker: Arc::default(),
            budget: Duration::from_millis(25),
        }
    }

    /// The longest that a request waits for the store.
    #[must_use]
    pub fn with_budget(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// While the store fails, this one decides.
    #[must_use]
    pub fn with_local(self, local: impl RateLimitStore) -> Self {
        let replicas = self.local.map_or(NonZeroU32::MIN, |local| local.replicas);
        Self { local: Some(Local { store: Arc::new(local), replicas }), ..self }
    }

    /// How many servers share each limit: while the store fails each grants one part of so many,
    /// and at least 1. Changes nothing without a [local store](Self::with_local).
    #[must_use]
    pub fn with_replicas(mut self, replicas: NonZeroU32) -> Self {
        if let Some(local) = &mut self.local {
            local.replicas = replicas;
        }
        self
    }

    /// Whether the store has failed, so that nobody waits for it now. For metrics.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.open.load(Ordering::Relaxed)
    }

    /// An answer of the store's, or why there is none in time; the breaker hears of it.
    async fn in_time<T: Send + 'static>(
        &self,
        answer: Answer<Result<T, StoreError>>,
        looks: impl FnOnce() -> SmallVec<[Take; 2]>,
    ) -> Result<T, StoreError> {
        let asked = Instant::now();
        let result = match timeout(self.budget, answer).await {
            Ok(result) => result.inspect_err(|_| signals::limit_store_failed("refused")),
            Err(elapsed) => {
                signals::limit_store_failed("late");
                Err(StoreError::unavailable(elapsed))
            }
        };
        signals::limit_store_answered(asked.elapsed());
        match result {
            Ok(value) => {
                self.breaker.failures.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no decision in time");
                if self.breaker.failed(&error) {
                    let store = Arc::downgrade(&self.store);
                    let breaker = OpenBreaker(Arc::clone(&self.breaker));
                    tokio::spawn(probe(store, looks(), self.budget, breaker));
                }
                Err(StoreError::unavailable(error))
            }
        }
    }

    async fn take_shared(&self, takes: &[Take]) -> Result<Decisions, StoreError> {
        let answer = self.store.take(takes);
        let decisions = self.in_time(answer, || takes.iter().map(look).collect()).await?;
        if let Some(local) = &self.local
            && decisions.iter().all(|taken| taken.decision.is_allowed())
        {
            local.warm(takes).await;
        }
        Ok(decisions)
    }

    async fn settle_shared(&self, hold: Hold, keep: bool) -> Result<Decision, StoreError> {
        let take = take_of(&hold);
        if let (Some(local), true) = (&self.local, keep) {
            local.count(std::slice::from_ref(&take)).await;
        }
        let answer = self.store.settle(hold, keep);
        self.in_time(answer, || SmallVec::from_iter([look(&take)])).await
    }
}

impl RateLimitStore for FallbackStore {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        if self.is_open() {
            return match &self.local {
                Some(local) => local.take(takes),
                None => Answer::Ready(Err(given_up())),
            };
        }
        let (this, takes) = (self.clone(), SmallVec::<[Take; 2]>::from(takes));
        Answer::pending(async move {
            match (this.take_shared(&takes).await, &this.local) {
                (Err(_), Some(local)) => local.take(&takes).await,
                (result, _) => result,
            }
        })
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        if let Some(local) = self.local.as_ref().filter(|_| hold.mark.0 & LOCAL != 0) {
            return local.settle(hold, keep);
        }
        if self.is_open() {
            // What was taken there stays taken: it leaves with its window.
            return Answer::Ready(Err(given_up()));
        }
        let this = self.clone();
        Answer::pending(async move { this.settle_shared(hold, keep).await })
    }

    /// Forgets in both stores.
    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let shared = self.store.reset(limiter, key);
        let local = self.local.as_ref().map(|local| local.store.reset(limiter, key));
        Answer::pending(async move {
            if let Some(local) = local {
                local.await?;
            }
            shared.await
        })
    }

    fn clock(&self) -> SharedClock {
        self.store.clock()
    }
}

impl fmt::Debug for FallbackStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackStore")
            .field("store", &self.store)
            .field("local", &self.local.as_ref().map(|local| &local.store))
            .field("budget", &self.budget)
            .field("is_open", &self.is_open())
            .finish()
    }
}

fn given_up() -> StoreError {
    StoreError::unavailable("it failed again and again; it is used once it is back")
}

/// The store that decides while the shared one fails.
#[derive(Clone)]
struct Local {
    store: Arc<dyn RateLimitStore>,
    replicas: NonZeroU32,
}

impl Local {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        signals::limit_undecided("local");
        let takes: SmallVec<[Take; 2]> = takes.iter().map(|take| self.share(take)).collect();
        match self.store.take(&takes) {
            Answer::Ready(answer) => Answer::Ready(answer.map(marked)),
            Answer::Pending(answer) => Answer::pending(async { answer.await.map(marked) }),
        }
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let mark = Mark(hold.mark.0 & !LOCAL);
        self.store.settle(Hold { mark, ..hold }, keep)
    }

    /// Counts what the shared store admitted. What it took on trial is counted when it is kept.
    async fn warm(&self, takes: &[Take]) {
        let counted = |take: &&Take| !take.hold && take.cost > 0;
        let takes: SmallVec<[Take; 2]> = takes.iter().filter(counted).cloned().collect();
        self.count(&takes).await;
    }

    /// Counts each as far as there is room: a share that is used up stays used up.
    async fn count(&self, takes: &[Take]) {
        for take in takes {
            let take = Take { hold: false, ..self.share(take) };
            // A local store that can't count now will say so when it is asked to decide.
            _ = self.store.take(std::slice::from_ref(&take)).await;
        }
    }

    /// The part of a limit that this server grants. A request that weighs more than that takes all
    /// of it, where it would have been admitted by the whole.
    fn share(&self, take: &Take) -> Take {
        let limit = (take.quota.limit() / self.replicas).max(1);
        let quota = Quota::new(limit, take.quota.window()).unwrap_or(take.quota);
        let cost = if take.cost <= take.quota.limit() { take.cost.min(limit) } else { take.cost };
        Take { quota, cost, ..take.clone() }
    }
}

fn marked(mut decisions: Decisions) -> Decisions {
    for hold in decisions.iter_mut().filter_map(|taken| taken.hold.as_mut()) {
        hold.mark.0 |= LOCAL;
    }
    decisions
}

/// The same request, only to look.
fn look(take: &Take) -> Take {
    Take { cost: 0, hold: false, ..take.clone() }
}

fn take_of(hold: &Hold) -> Take {
    Take {
        limiter: hold.limiter,
        key: hold.key.clone(),
        quota: hold.quota,
        cost: hold.cost,
        hold: false,
    }
}

#[derive(Debug, Default)]
struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    /// Notes a failure; whether it is the one that opens.
    fn failed(&self, error: &StoreError) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opens = failures >= FAILURES && !self.open.swap(true, Ordering::Relaxed);
        if opens {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the store of the limits fails; nobody waits for it now");
            signals::limit_breaker(true);
        }
        opens
    }
}

/// Closes the breaker when it is dropped: when the store is back, and also where the probe ends
/// otherwise (its runtime is shut down, the store panics), for nobody else would close it.
struct OpenBreaker(Arc<Breaker>);

impl Drop for OpenBreaker {
    fn drop(&mut self) {
        self.0.failures.store(0, Ordering::Relaxed);
        self.0.open.store(false, Ordering::Relaxed);
        signals::limit_breaker(false);
    }
}

/// Asks until the store answers in time, or is dropped.
async fn probe(
    store: Weak<dyn RateLimitStore>,
    takes: SmallVec<[Take; 2]>,
    budget: Duration,
    _open: OpenBreaker,
) {
    loop {
        let asked = Instant::now();
        let Some(store) = store.upgrade() else { return };
        // The first answer may have had to wait for a connection; then the second tells.
        for _ in 0..2 {
            let start = Instant::now();
            match timeout(PROBE_WAITS, store.take(&takes)).await {
                Ok(Ok(_)) if start.elapsed() <= budget => {
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

#[cfg(test)]
mod tests;
