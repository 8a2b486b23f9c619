//! Quotas that are looked up, such as in a database, and remembered for a while.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use quick_cache::sync::Cache;

use super::{Key, Quota};
use crate::{Answer, SharedClock, StoreError};

/// Where a rule learns the quota of a key.
#[derive(Clone)]
pub(super) struct QuotaSource {
    find: Arc<Find>,
    known: Arc<Cache<Key, Known>>,
    keep_for: Duration,
}

type Find = dyn Fn(Key) -> Boxed<Result<Option<Quota>, StoreError>> + Send + Sync;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Clone, Copy)]
struct Known {
    quota: Option<Quota>,
    until: Duration,
}

const REMEMBERED: usize = 10_000;
/// While one request looks up what is out of date, or after that failed, others go by the old.
const MEANWHILE: Duration = Duration::from_secs(1);

impl QuotaSource {
    pub(super) fn new<F>(
        keep_for: Duration,
        find: impl Fn(Key) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Option<Quota>, StoreError>> + Send + 'static,
    {
        let find = move |key| -> Boxed<_> { Box::pin(find(key)) };
        Self { find: Arc::new(find), known: Arc::new(Cache::new(REMEMBERED)), keep_for }
    }

    /// The quota of this key; `otherwise` where it has none of its own, or none can be found.
    pub(super) fn quota(&self, key: &Key, otherwise: Quota, clock: &SharedClock) -> Answer<Quota> {
        let now = clock.monotonic();
        let old = self.known.get(key);
        if let Some(known) = old {
            if known.until > now {
                return Answer::Ready(known.quota.unwrap_or(otherwise));
            }
            self.note(key, known.quota, now + MEANWHILE);
        }
        let (this, key, clock) = (self.clone(), key.clone(), Arc::clone(clock));
        Answer::pending(async move {
            let quota = match (this.find)(key.clone()).await {
                Ok(quota) => {
                    this.note(&key, quota, clock.monotonic().saturating_add(this.keep_for));
                    quota
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a quota can't be looked up; the last one known counts");
                    let quota = old.and_then(|known| known.quota);
                    this.note(&key, quota, clock.monotonic() + MEANWHILE);
                    quota
                }
            };
            quota.unwrap_or(otherwise)
        })
    }

    fn note(&self, key: &Key, quota: Option<Quota>, until: Duration) {
        if !self.keep_for.is_zero() {
            self.known.insert(key.clone(), Known { quota, until });
        }
    }
}

impl fmt::Debug for QuotaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuotaSource(kept for {:?})", self.keep_for)
    }
}
