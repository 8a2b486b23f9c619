//! [`FallbackStore`]: no request waits long for a store, nor at all for one that is gone.

mod breaker;
mod calls;
mod late;
mod local;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use self::{
    breaker::{Breaker, look},
    late::{Asked, Late},
    local::Local,
};
use super::{
    Decision, Key, LimiterName, RateLimitStore,
    store::{Decisions, Hold, Take},
};
use crate::{Answer, SharedClock, StoreError, signals};

pub use calls::Calls;

/// A store around a store that may be slow or gone, such as Redis; and a store in this process that
/// decides meanwhile.
///
/// 1. A decision has a budget, connecting included: 25 ms unless [set](Self::with_budget). No request
///    waits longer.
/// 2. What isn't answered by then, while the store is there, is *late*: it is decided by the local
///    store. That is kept warm: what the shared store admits is counted there, too. Still the shared
///    store counts it, when it gets to it. So whatever makes a store late, a flood of one client's
///    requests, say, never admits more than twice the limit through a process.
/// 3. The store is *gone* once calls to it have failed three times in a row, or themselves taken
///    longer than the budget ([`Calls`]; how long they wait in a queue here doesn't matter). Then
///    nobody waits at all. Twice a second, in the background, it is asked whether it is back:
///    whether it answers within the budget. It is used again within a second of its return.
/// 4. What is decided while the store is gone, or where a call fails, is a choice:
///    - *allow*, *deny*: failures come back as [`StoreError::unavailable`], and
///      [`OnFailure`](super::OnFailure) of the layer lets requests pass or refuses them;
///    - *local*: the local store decides [that, too](Self::with_local_outages). With [several
///      replicas](Self::with_replicas) of the server each grants its share of the limit, and a
///      decision tells of this share.
///
/// "Limit exceeded" is a decision and no failure. A request whose answer came too late is not asked
/// again.
///
/// ```
/// use tower_warden::{limit::FallbackStore, store::memory::MemoryRateLimitStore};
/// use std::{num::NonZeroU32, time::Duration};
/// # let shared = MemoryRateLimitStore::new();
/// let store = FallbackStore::new(shared, MemoryRateLimitStore::new())
///     .with_budget(Duration::from_millis(10))
///     .with_local_outages()
///     .with_replicas(NonZeroU32::new(3).unwrap());
/// assert!(!store.is_open());
/// ```
#[derive(Clone)]
pub struct FallbackStore(Arc<Shared>);

#[derive(Clone)]
struct Shared {
    store: Arc<dyn RateLimitStore>,
    local: Local,
    /// Whether the local store decides while the other one is gone.
    local_outages: bool,
    budget: Duration,
    calls: Calls,
    /// Whether the store times its calls. Otherwise its answers are its calls.
    times_itself: bool,
    breaker: Arc<Breaker>,
    late: Arc<Late>,
}

impl FallbackStore {
    /// Around this store, with a budget of 25 ms. The local store, as a rule one in this process,
    /// decides what is late.
    #[must_use]
    pub fn new(store: impl RateLimitStore, local: impl RateLimitStore) -> Self {
        let calls = store.calls();
        let shared = Shared {
            store: Arc::new(store),
            local: Local { store: Arc::new(local), replicas: NonZeroU32::MIN },
            local_outages: false,
            budget: Duration::ZERO,
            times_itself: calls.is_some(),
            calls: calls.unwrap_or_default(),
            breaker: Arc::default(),
            late: Arc::default(),
        };
        Self(Arc::new(shared)).with_budget(Duration::from_millis(25))
    }

    /// The longest that a request waits for the store. Also the longest that a call of it may take, where
    /// it [times](Calls) them itself: that is one for all who share the store, so set it before this is
    /// cloned.
    #[must_use]
    pub fn with_budget(self, budget: Duration) -> Self {
        self.0.calls.set_budget(budget);
        self.change(|shared| shared.budget = budget)
    }

    /// While the store is gone the local one decides, too.
    #[must_use]
    pub fn with_local_outages(self) -> Self {
        self.change(|shared| shared.local_outages = true)
    }

    /// How many servers share each limit: what is decided locally is so by one part of so many, and
    /// at least 1.
    #[must_use]
    pub fn with_replicas(self, replicas: NonZeroU32) -> Self {
        self.change(|shared| shared.local.replicas = replicas)
    }

    /// Whether the store is gone, so that nobody waits for it now. For metrics.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.breaker.is_open()
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl RateLimitStore for FallbackStore {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        if self.is_open() {
            return self.0.while_gone(takes, None);
        }
        let shared = || (Arc::clone(&self.0), SmallVec::<[Take; 2]>::from(takes));
        match self.0.store.take(takes) {
            Answer::Ready(Ok(decisions)) => {
                self.0.heard_of();
                match self.0.warm(takes, &decisions) {
                    None => Answer::Ready(Ok(decisions)),
                    Some(warming) => Answer::pending(async {
                        warming.await;
                        Ok(decisions)
                    }),
                }
            }
            Answer::Ready(Err(error)) => {
                let (shared, takes) = shared();
                Answer::pending(async move { shared.unanswered(&takes, error).await })
            }
            Answer::Pending(asked) => {
                let (shared, takes) = shared();
                Answer::pending(async move { shared.wait(&takes, asked).await })
            }
        }
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let hold = match self.0.late.settle(hold, keep) {
            Ok(hold) => return self.0.local.settle(hold, keep),
            Err(hold) => hold,
        };
        if Local::holds(&hold) {
            return self.0.local.settle(hold, keep);
        }
        let take = take_of(&hold);
        let warming = keep.then(|| self.0.local.warm(std::slice::from_ref(&take))).flatten();
        // What was taken from one that is gone stays taken: it leaves with its window.
        let asked = (!self.is_open()).then(|| self.0.store.settle(hold, keep));
        let shared = Arc::clone(&self.0);
        Answer::pending(async move {
            if let Some(warming) = warming {
                warming.await;
            }
            match asked {
                Some(asked) => shared.wait_for_settling(&take, asked).await,
                None => Err(gone()),
            }
        })
    }

    /// Forgets in both stores.
    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let shared = self.0.store.reset(limiter, key);
        let local = self.0.local.store.reset(limiter, key);
        Answer::pending(async move {
            local.await?;
            shared.await
        })
    }

    fn clock(&self) -> SharedClock {
        self.0.store.clock()
    }
}

impl Shared {
    /// Waits for the store's answer as long as a request may, and decides otherwise.
    async fn wait(
        self: Arc<Self>,
        takes: &[Take],
        mut asked: Asked<Decisions>,
    ) -> Result<Decisions, StoreError> {
        match self.in_time(&mut asked).await {
            Some(Ok(decisions)) => {
                if let Some(warming) = self.warm(takes, &decisions) {
                    warming.await;
                }
                Ok(decisions)
            }
            Some(Err(error)) => self.unanswered(takes, error).await,
            None => {
                self.breaker.check(&self.calls, &self.store, takes, &late());
                if self.breaker.is_open() {
                    return self.while_gone(takes, None).await;
                }
                let mut decisions = self.decide_late(takes).await?;
                if all_allowed(&decisions) && takes.iter().any(|take| take.cost > 0) {
                    self.late.wait_for(asked, &self.store, &mut decisions);
                }
                Ok(decisions)
            }
        }
    }

    /// The store answered that it doesn't decide.
    async fn unanswered(&self, takes: &[Take], error: StoreError) -> Result<Decisions, StoreError> {
        if error.is_overloaded() {
            return self.decide_late(takes).await;
        }
        self.failed(takes, &error);
        self.while_gone(takes, Some(error)).await
    }

    fn decide_late(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        signals::limit_undecided("late");
        self.local.take(takes)
    }

    fn while_gone(
        &self,
        takes: &[Take],
        error: Option<StoreError>,
    ) -> Answer<Result<Decisions, StoreError>> {
        if !self.local_outages {
            return Answer::Ready(Err(error.map_or_else(gone, StoreError::unavailable)));
        }
        signals::limit_undecided("local");
        self.local.take(takes)
    }

    async fn wait_for_settling(
        &self,
        take: &Take,
        asked: Answer<Result<Decision, StoreError>>,
    ) -> Result<Decision, StoreError> {
        let takes = std::slice::from_ref(take);
        let answer = match asked {
            Answer::Ready(answer) => Some(answer),
            Answer::Pending(mut asked) => {
                let answer = self.in_time(&mut asked).await;
                if answer.is_none() {
                    self.late.see_through(asked);
                }
                answer
            }
        };
        match answer {
            Some(Ok(decision)) => Ok(decision),
            Some(Err(error)) => {
                if !error.is_overloaded() {
                    self.failed(takes, &error);
                }
                Err(StoreError::unavailable(error))
            }
            None => {
                self.breaker.check(&self.calls, &self.store, takes, &late());
                let decisions = self.local.take(&[look(take)]).await?;
                let standing = decisions.first().map(|taken| taken.decision);
                standing.ok_or_else(|| StoreError::internal("no decision came back"))
            }
        }
    }

    /// An answer, or none within the budget.
    async fn in_time<T>(&self, asked: &mut Asked<T>) -> Option<Result<T, StoreError>> {
        let start = Instant::now();
        let answer = timeout(self.budget, asked).await;
        signals::limit_store_answered(start.elapsed());
        match &answer {
            Ok(Ok(_)) => self.heard_of(),
            Ok(Err(_)) => {}
            Err(_) => {
                signals::limit_store_failed("late");
                if !self.times_itself {
                    self.calls.note(false);
                }
            }
        }
        answer.ok()
    }

    /// The store answered.
    fn heard_of(&self) {
        if !self.times_itself {
            self.calls.note(true);
        }
    }

    /// The store answered with a failure.
    fn failed(&self, takes: &[Take], error: &StoreError) {
        signals::limit_store_failed("refused");
        tracing::debug!(error = error as &dyn std::error::Error, "no decision");
        if !self.times_itself {
            self.calls.note(false);
        }
        self.breaker.check(&self.calls, &self.store, takes, error);
    }

    /// Counts here what the store admitted.
    fn warm(
        &self,
        takes: &[Take],
        decisions: &Decisions,
    ) -> Option<impl Future<Output = ()> + use<>> {
        all_allowed(decisions).then(|| self.local.warm(takes)).flatten()
    }
}

impl fmt::Debug for FallbackStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackStore")
            .field("store", &self.0.store)
            .field("local", &self.0.local.store)
            .field("local_outages", &self.0.local_outages)
            .field("budget", &self.0.budget)
            .field("is_open", &self.is_open())
            .finish()
    }
}

fn all_allowed(decisions: &Decisions) -> bool {
    decisions.iter().all(|taken| taken.decision.is_allowed())
}

fn gone() -> StoreError {
    StoreError::unavailable("it failed again and again; it is used once it is back")
}

fn late() -> StoreError {
    StoreError::unavailable("its calls take longer than the budget")
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

#[cfg(test)]
mod tests;
