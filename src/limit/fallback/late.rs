//! Questions whose answers came too late: decided in this process, and still counted by the shared
//! store when it gets to them.

use std::{
    collections::HashMap,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use smallvec::SmallVec;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    StoreError,
    limit::{
        Decision, RateLimitStore,
        store::{Decisions, Hold, Mark},
    },
};

/// How many questions are waited for in the background. What is late beyond them is counted in this
/// process only.
const WAITING: usize = 4096;

/// What tells a hold that both stores have.
const BOTH: u64 = 1 << 62;

/// An answer that is waited for.
pub(super) type Asked<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Questions that are out.
#[derive(Debug)]
pub(super) struct Late {
    places: Arc<Semaphore>,
    next: AtomicU64,
    /// By the low bits of their marks.
    holds: Mutex<HashMap<u64, Settling>>,
}

/// A hold of the local store, and who waits to hear how it ends.
#[derive(Debug)]
struct Settling {
    hold: Hold,
    told: oneshot::Sender<bool>,
}

/// How a hold ends, and until when that is waited for.
struct End {
    number: u64,
    told: oneshot::Receiver<bool>,
    until: Instant,
}

impl Default for Late {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(WAITING));
        Self { places, next: AtomicU64::new(0), holds: Mutex::default() }
    }
}

impl Late {
    /// Waits on, in the background, for the answer to what was admitted here meanwhile. What is held
    /// is settled there as it is here; after its window, in which it leaves both, no word is waited for.
    pub(super) fn wait_for(
        self: &Arc<Self>,
        asked: Asked<Decisions>,
        store: &Arc<dyn RateLimitStore>,
        decisions: &mut Decisions,
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let ends: SmallVec<[_; 2]> = decisions
            .iter_mut()
            .map(|taken| taken.hold.as_mut().map(|hold| self.enter(hold)))
            .collect();
        let (this, store) = (Arc::clone(self), Arc::clone(store));
        tokio::spawn(async move {
            let _place = place;
            let mut theirs = asked.await.unwrap_or_default().into_iter().map(|taken| taken.hold);
            for end in ends {
                let hold = theirs.next().flatten();
                let Some(end) = end else { continue };
                // Who lets go of a hold without a word has counted it.
                let keep = this.word(end).await.unwrap_or(true);
                if let Some(hold) = hold {
                    _ = store.settle(*hold, keep).await;
                }
            }
        });
    }

    /// Sees to it that a hold is settled, though nobody waits for it.
    pub(super) fn see_through(&self, asked: Asked<Decision>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        tokio::spawn(async move {
            _ = asked.await;
            drop(place);
        });
    }

    /// The local store's hold where this is one that both have; the shared store's is settled alike.
    pub(super) fn settle(&self, hold: Hold, keep: bool) -> Result<Hold, Hold> {
        if hold.mark.0 & BOTH == 0 {
            return Err(hold);
        }
        let settling = self.holds().remove(&(hold.mark.0 & !BOTH));
        // One that has left its window is unknown to the local store, and changes nothing there.
        let Some(Settling { hold, told }) = settling else { return Ok(hold) };
        _ = told.send(keep);
        Ok(hold)
    }

    /// How a hold is settled, where that is said within its window.
    async fn word(&self, End { number, told, until }: End) -> Option<bool> {
        let word = timeout_at(until, told).await;
        if word.is_err() {
            self.holds().remove(&number);
        }
        word.ok()?.ok()
    }

    /// How many holds, and how many questions, are waited for.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.holds().len(), WAITING - self.places.available_permits())
    }

    fn enter(&self, hold: &mut Hold) -> End {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (told, word) = oneshot::channel();
        let window = hold.quota.window();
        let both = Hold {
            limiter: hold.limiter,
            key: hold.key.clone(),
            quota: hold.quota,
            cost: hold.cost,
            mark: Mark(BOTH | number),
        };
        let local = mem::replace(hold, both);
        self.holds().insert(number, Settling { hold: local, told });
        let now = Instant::now();
        End { number, told: word, until: now.checked_add(window).unwrap_or(now) }
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<u64, Settling>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
