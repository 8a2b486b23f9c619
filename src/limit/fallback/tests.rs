//! Time is tokio's, paused: it moves on by itself while all tasks wait.

use std::sync::{Mutex, atomic::AtomicUsize};

use super::*;
use crate::{ManualClock, store::memory::MemoryRateLimitStore};

/// A store that takes its time, or fails.
#[derive(Clone, Debug, Default)]
struct Moody {
    store: MemoryRateLimitStore,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    #[default]
    Good,
    Late(Duration),
    Gone,
}

impl Moody {
    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer<T: Send + 'static>(
        &self,
        answer: Answer<Result<T, StoreError>>,
    ) -> Answer<Result<T, StoreError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match *self.mood.lock().unwrap() {
            Mood::Good => answer,
            Mood::Gone => Answer::Ready(Err(StoreError::unavailable("gone"))),
            Mood::Late(by) => Answer::pending(async move {
                sleep(by).await;
                answer.await
            }),
        }
    }
}

impl RateLimitStore for Moody {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        self.answer(self.store.take(takes))
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        self.answer(self.store.settle(hold, keep))
    }
}

fn take(limit: u32, hold: bool) -> [Take; 1] {
    let quota = Quota::per_minute(limit);
    [Take { hold, ..Take::new(LimiterName::new("ip").unwrap(), "a", quota) }]
}

/// A local store of which time stands still.
fn local() -> MemoryRateLimitStore {
    MemoryRateLimitStore::new().with_clock(Arc::new(ManualClock::new()))
}

async fn remaining(store: &FallbackStore, limit: u32) -> u32 {
    store.take(&take(limit, false)).await.unwrap()[0].decision.remaining()
}

async fn open(store: &FallbackStore, inner: &Moody) {
    inner.is(Mood::Gone);
    for _ in 0..FAILURES {
        _ = store.take(&take(1_000, false)).await;
    }
    assert!(store.is_open());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_budget_and_after_three_failures_at_all() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone());
    inner.is(Mood::Late(Duration::from_secs(10)));
    for waited in [25, 25, 25, 0, 0] {
        let start = Instant::now();
        assert!(store.take(&take(9, false)).await.unwrap_err().is_unavailable());
        // The timer counts whole milliseconds, and begins with the next.
        assert!(start.elapsed().abs_diff(Duration::from_millis(waited)).as_millis() <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_used_within_a_second_of_its_return_and_asked_twice_a_second_until_then() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone());
    open(&store, &inner).await;
    let before = inner.asked();
    sleep(Duration::from_secs(60)).await;
    assert!((119..=121).contains(&(inner.asked() - before)));
    inner.is(Mood::Good);
    sleep(Duration::from_secs(1)).await;
    assert!(!store.is_open());
    assert_eq!(remaining(&store, 9).await, 5, "three were counted though they failed");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_too_slow_is_not_back() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone());
    open(&store, &inner).await;
    inner.is(Mood::Late(Duration::from_millis(100)));
    sleep(Duration::from_secs(5)).await;
    assert!(store.is_open());
    inner.is(Mood::Late(Duration::from_millis(10)));
    sleep(Duration::from_secs(1)).await;
    assert!(!store.is_open());
}

#[tokio::test(start_paused = true)]
async fn single_failures_and_refusals_open_nothing() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone());
    for _ in 0..10 {
        inner.is(Mood::Gone);
        store.take(&take(3, false)).await.unwrap_err();
        store.take(&take(3, false)).await.unwrap_err();
        inner.is(Mood::Good);
        store.take(&take(3, false)).await.unwrap();
    }
    assert!(!store.take(&take(3, false)).await.unwrap()[0].decision.is_allowed());
    assert!(!store.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_new_start_where_a_local_store_decides() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone()).with_local(local());
    for left in (6..10).rev() {
        assert_eq!(remaining(&store, 10).await, left);
    }
    inner.is(Mood::Gone);
    for left in (0..6).rev() {
        assert_eq!(remaining(&store, 10).await, left);
    }
    assert!(!store.take(&take(10, false)).await.unwrap()[0].decision.is_allowed());
}

#[tokio::test(start_paused = true)]
async fn each_replica_grants_its_share() {
    for (limit, replicas, share) in [(10, 3, 3), (10, 1, 10), (2, 5, 1)] {
        let inner = Moody::default();
        let store = FallbackStore::new(inner.clone())
            .with_local(local())
            .with_replicas(NonZeroU32::new(replicas).unwrap());
        inner.is(Mood::Gone);
        for left in (0..share).rev() {
            assert_eq!(remaining(&store, limit).await, left);
        }
        assert!(!store.take(&take(limit, false)).await.unwrap()[0].decision.is_allowed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_settled_where_it_was_taken() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone()).with_local(local());
    let hold = async || *store.take(&take(5, true)).await.unwrap()[0].hold.take().unwrap();

    let (kept, given_back) = (hold().await, hold().await);
    store.settle(kept, true).await.unwrap();
    assert_eq!(store.settle(given_back, false).await.unwrap().remaining(), 4);

    inner.is(Mood::Gone);
    let (kept, given_back) = (hold().await, hold().await);
    assert_eq!(store.settle(kept, true).await.unwrap().remaining(), 2);
    inner.is(Mood::Good);
    assert_eq!(store.settle(given_back, false).await.unwrap().remaining(), 3);
    assert_eq!(remaining(&store, 5).await, 1, "the shared store never gave these back");
}
