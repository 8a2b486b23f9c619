//! Time is tokio's, paused: it moves on by itself while all tasks wait.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::time::sleep;

use super::{breaker::FAILURES, *};
use crate::{ManualClock, Quota, store::memory::MemoryRateLimitStore};

/// A store that takes its time, or fails.
#[derive(Clone, Debug, Default)]
struct Moody {
    store: MemoryRateLimitStore,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
    calls: Option<Calls>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    #[default]
    Good,
    Late(Duration),
    Overloaded,
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
            Mood::Overloaded => Answer::Ready(Err(StoreError::overloaded("a long queue"))),
            Mood::Gone => Answer::Ready(Err(StoreError::unavailable("gone"))),
            Mood::Late(by) => Answer::pending(async move {
                sleep(by).await;
                answer.await
            }),
        }
    }

    async fn counted(&self, limit: u32) -> u32 {
        let takes = take(limit, false).map(|take| look(&take));
        limit - self.store.take(&takes).await.unwrap()[0].decision.remaining()
    }
}

impl RateLimitStore for Moody {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            // It counts when it gets to it.
            Mood::Late(by) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let (store, takes) = (self.store.clone(), takes.to_vec());
                Answer::pending(async move {
                    sleep(by).await;
                    store.take(&takes).await
                })
            }
            _ => self.answer(self.store.take(takes)),
        }
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        self.answer(self.store.settle(hold, keep))
    }

    fn calls(&self) -> Option<Calls> {
        self.calls.clone()
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
    let store = FallbackStore::new(inner.clone(), local());
    inner.is(Mood::Late(Duration::from_secs(10)));
    for (waited, late) in [(25, true), (25, true), (25, false), (0, false), (0, false)] {
        let start = Instant::now();
        let answer = store.take(&take(9, false)).await;
        assert_eq!(answer.is_err_and(|error| error.is_unavailable()), !late);
        // The timer counts whole milliseconds, and begins with the next.
        assert!(start.elapsed().abs_diff(Duration::from_millis(waited)).as_millis() <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_used_within_a_second_of_its_return_and_asked_twice_a_second_until_then() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
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
    let store = FallbackStore::new(inner.clone(), local());
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
    let store = FallbackStore::new(inner.clone(), local());
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
    let store = FallbackStore::new(inner.clone(), local()).with_local_outages();
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
        let store = FallbackStore::new(inner.clone(), local())
            .with_local_outages()
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
    let store = FallbackStore::new(inner.clone(), local()).with_local_outages();
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

#[tokio::test(start_paused = true)]
async fn what_is_late_is_decided_here_and_still_counted_there() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
    for left in [4, 3] {
        assert_eq!(remaining(&store, 5).await, left);
    }
    inner.is(Mood::Late(Duration::from_millis(60)));
    assert_eq!(remaining(&store, 5).await, 2, "what the store admitted is counted here");
    assert_eq!(inner.counted(5).await, 2);
    sleep(Duration::from_millis(60)).await;
    assert_eq!(inner.counted(5).await, 3);
}

#[tokio::test(start_paused = true)]
async fn late_hold_ends_in_both_stores_alike() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
    for (keep, left) in [(false, 5), (true, 4)] {
        inner.is(Mood::Late(Duration::from_millis(60)));
        let hold = *store.take(&take(5, true)).await.unwrap()[0].hold.take().unwrap();
        sleep(Duration::from_millis(60)).await;
        inner.is(Mood::Good);
        assert_eq!(store.settle(hold, keep).await.unwrap().remaining(), left);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(inner.counted(5).await, 5 - left);
    }
}

#[tokio::test(start_paused = true)]
async fn late_hold_of_which_nobody_says_a_word_is_counted_and_forgotten_with_its_window() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
    inner.is(Mood::Late(Duration::from_millis(60)));
    let hold = async || *store.take(&take(5, true)).await.unwrap()[0].hold.take().unwrap();
    let (dropped, late) = (hold().await, hold().await);
    drop(dropped);
    assert_eq!(store.0.late.waiting(), (2, 2));
    sleep(Duration::from_secs(61)).await;
    assert_eq!(store.0.late.waiting(), (0, 0));
    assert_eq!(inner.counted(5).await, 2);
    // A word that comes later still changes nothing.
    inner.is(Mood::Good);
    assert_eq!(store.settle(late, false).await.unwrap().remaining(), 3);
    assert_eq!(inner.counted(5).await, 2);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_between_two_questions_leaves_no_hold() {
    use crate::limit::{question::Question, rule::RoleOfRule};

    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
    let late = Arc::clone(&store.0.late);
    let store: Arc<dyn RateLimitStore> = Arc::new(store);
    inner.is(Mood::Late(Duration::from_millis(60)));
    let [enforced] = take(5, true);
    let observed = Take { limiter: LimiterName::new("trial").unwrap(), ..enforced.clone() };
    let mut question = Question::default();
    question.add(RoleOfRule::Enforces, enforced);
    question.add(RoleOfRule::Observes, observed);
    let Answer::Pending(answer) = question.put(&store) else { panic!("it has two questions") };
    // Its first question is answered after 25 ms, the second after 50.
    assert!(timeout(Duration::from_millis(40), answer).await.is_err());
    sleep(Duration::from_millis(100)).await;
    assert_eq!(late.waiting(), (0, 0));
    assert_eq!(inner.counted(5).await, 1, "it counts");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_stores_own_queue_opens_nothing() {
    let calls = Calls::new();
    let inner = Moody { calls: Some(calls.clone()), ..Moody::default() };
    let store = FallbackStore::new(inner.clone(), local());
    inner.is(Mood::Late(Duration::from_secs(10)));
    let mut admitted = 0;
    for _ in 0..50 {
        let taken = store.take(&take(9, false)).await.unwrap();
        admitted += u32::from(taken[0].decision.is_allowed());
    }
    assert_eq!((admitted, store.is_open()), (9, false));

    let slow = async || {
        sleep(Duration::from_millis(30)).await;
        Ok::<_, StoreError>(())
    };
    for _ in 0..FAILURES {
        calls.time(Duration::from_secs(1), slow(), || ()).await.unwrap().unwrap();
    }
    assert!(store.take(&take(9, false)).await.is_err());
    assert!(store.is_open());
}

#[tokio::test(start_paused = true)]
async fn overloaded_store_is_not_gone() {
    let inner = Moody::default();
    let store = FallbackStore::new(inner.clone(), local());
    inner.is(Mood::Overloaded);
    for left in (0..9).rev() {
        assert_eq!(remaining(&store, 9).await, left);
    }
    assert!(!store.is_open());
}

#[tokio::test(flavor = "current_thread")]
async fn call_is_not_late_where_it_is_we_who_are_busy() {
    let calls = Calls::new();
    let busy = tokio::spawn(async {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(20));
            tokio::task::yield_now().await;
        }
    });
    let answer = async {
        sleep(Duration::from_millis(1)).await;
        Ok::<_, StoreError>(())
    };
    let start = std::time::Instant::now();
    calls.time(Duration::from_secs(1), answer, || ()).await.unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert_eq!(calls.failed_in_a_row(), 0);
    busy.await.unwrap();
}
