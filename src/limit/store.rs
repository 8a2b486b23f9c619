//! For anyone who writes a store of limits, or wraps one: what a store is asked, what it answers, and the
//! arithmetic that all of them share.
//!
//! Programs that limit need none of this: they hand a store to a
//! [`RateLimitLayer`](crate::RateLimitLayer) or a [`RateLimiter`](crate::RateLimiter).
//!
//! The contract is [`RateLimitStore`]'s. This is a whole store, for one process: a map under a lock.
//!
//! ```
//! use std::{collections::HashMap, sync::Mutex};
//! use tower_warden::{
//!     Answer, Key, Quota, SharedClock, StoreError, SystemClock,
//!     limit::{Decision, LimiterName, RateLimitStore},
//!     limit::store::{Decisions, Hold, RESOLUTION, SlidingWindow, Take, Taken},
//! };
//!
//! #[derive(Debug)]
//! struct Plain {
//!     clock: SharedClock,
//!     clients: Mutex<HashMap<(LimiterName, Key), SlidingWindow>>,
//! }
//!
//! impl RateLimitStore for Plain {
//!     fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
//!         let now = self.clock.monotonic_micros();
//!         let mut clients = self.clients.lock().unwrap();
//!         let mut decisions = Decisions::new();
//!         for take in takes {
//!             let window = clients.entry((take.limiter, take.key.clone())).or_default();
//!             window.advance(now);
//!             decisions.push(Taken::new(window.decide(now, &take.quota, take.cost)));
//!         }
//!         if decisions.iter().all(|taken| taken.decision.is_allowed()) {
//!             for (take, taken) in takes.iter().zip(decisions.iter_mut()) {
//!                 let Some(window) = clients.get_mut(&(take.limiter, take.key.clone())) else { continue };
//!                 let mark = window.admit(now, &take.quota, take.cost, RESOLUTION, take.hold);
//!                 taken.decision = window.decide(now, &take.quota, 0);
//!                 taken.hold = (take.hold && take.cost > 0).then(|| take.held_by(mark));
//!             }
//!         }
//!         Answer::Ready(Ok(decisions))
//!     }
//!
//!     fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
//!         let now = self.clock.monotonic_micros();
//!         let mut clients = self.clients.lock().unwrap();
//!         let window = clients.entry((hold.limiter, hold.key.clone())).or_default();
//!         window.settle(now, &hold.quota, hold.cost, RESOLUTION, hold.mark, keep);
//!         Answer::Ready(Ok(window.decide(now, &hold.quota, 0)))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Plain { clock: SystemClock::shared(), clients: Mutex::default() };
//! let take = Take::new(LimiterName::new("ip")?, "203.0.113.9", Quota::per_minute(1));
//! assert!(store.take(std::slice::from_ref(&take)).await?[0].decision.is_allowed());
//! assert!(!store.take(&[take]).await?[0].decision.is_allowed());
//! # Ok(()) }
//! ```

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use auto_impl::auto_impl;
use smallvec::{SmallVec, smallvec};

pub use super::window::{IN_FLIGHT, RESOLUTION, SlidingWindow};
use super::{Calls, Decision, Key, LimiterName, Quota};
use crate::{Answer, SharedClock, StoreError, SystemClock};

/// Where the counts of a [`RateLimitLayer`](crate::RateLimitLayer) are kept.
///
/// A store answers two questions, each atomically:
///
/// - [`take`](RateLimitStore::take): is there room for this request under all of these limits? If
///   so, count it under each; if one refuses, under none.
/// - [`settle`](RateLimitStore::settle): a request that was counted on trial turned out to be
///   one that counts, or one that doesn't.
///
/// How it decides is [`SlidingWindow`]'s arithmetic, whatever the store is made of: the same
/// histories give the same decisions. Beyond that:
///
/// - Clones of a store share its state.
/// - The clock is the store's own: one clock for all who share its state.
/// - **One limiter and key may be asked for by different quotas** (a user's plan changes, so that an
///   hour's window becomes a minute's, and back). There is one history, and each question is answered
///   by its own quota: what was counted less than *its* window ago counts, whichever quota it was
///   counted by. So what was counted is kept for the longest window by which anything that is still
///   kept was counted: a question by a shorter window, a look, a refusal and a settlement forget
///   nothing that a longer one needs, and lengthen nothing. Once all of it has left that longest
///   window the state is gone, and the longest window with it. A question by a window longer than
///   any before finds what is still kept, no more.
/// - State may be forgotten when that window has passed since the last request that was counted, not
///   earlier. A bounded store that must forget earlier forgets those furthest from their limit.
/// - A refusal writes nothing.
/// - A store that can't decide answers [`StoreError`], soon; it never makes up a decision.
///
/// Verbs that are added to this trait have a default, so that stores go on compiling. The
/// [module](self) has a small store, written out.
///
/// ```
/// use tower_warden::{
///     Answer, Key, Quota, StoreError, limit::{Decision, LimiterName, RateLimitStore},
///     limit::store::{Decisions, Hold, Take}, store::memory::MemoryRateLimitStore,
/// };
///
/// /// A store around another, which tells a test what it was asked.
/// #[derive(Debug)]
/// struct Watched<S>(S, tokio::sync::mpsc::UnboundedSender<Key>);
///
/// impl<S: RateLimitStore> RateLimitStore for Watched<S> {
///     fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
///         takes.iter().for_each(|take| drop(self.1.send(take.key.clone())));
///         self.0.take(takes)
///     }
///
///     fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
///         self.0.settle(hold, keep)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
/// let store = Watched(MemoryRateLimitStore::new(), sender);
/// let limiter = tower_warden::RateLimiter::new(store, "items", Quota::per_hour(5));
/// limiter.take("ada").await?;
/// assert_eq!(asked.recv().await, Some(Key::from("ada")));
/// # Ok(())
/// # }
/// ```
#[auto_impl(Arc)]
pub trait RateLimitStore: fmt::Debug + Send + Sync + 'static {
    /// Counts a request under all of these limits, or, where one of them refuses, under none.
    ///
    /// The answer has one [`Taken`] for each [`Take`], in the same order. A cost of 0 only looks.
    /// No limiter and key stand in `takes` twice.
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>>;

    /// [`take`](RateLimitStore::take) for one limit, which is all that most requests have to pass,
    /// where the store decides without waiting and without a list. `None` is no answer: `take` is
    /// asked then.
    fn take_now(&self, _take: &Take) -> Option<Result<Taken, StoreError>> {
        None
    }

    /// Ends a hold: the request counts (`keep`), or is given back. The answer is how the limit
    /// stands then. A hold that the store no longer knows, because its request left the window, changes
    /// nothing: it is never taken from requests that came later.
    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>>;

    /// Forgets all that was counted by this limiter for this key, holds included: as if it had never
    /// come. For administrators.
    ///
    /// # Errors
    /// Unless the store says otherwise, [`StoreError::not_offered`].
    fn reset(&self, _limiter: LimiterName, _key: &Key) -> Answer<Result<(), StoreError>> {
        Answer::Ready(Err(StoreError::not_offered("reset")))
    }

    /// How its calls to its backend fare, where decisions wait for them in a queue of its own; see
    /// [`Calls`]. `None`: each answer is a call.
    fn calls(&self) -> Option<Calls> {
        None
    }

    /// The clock that layers over this store take the time of day from, for their headers, unless
    /// they are given another; so that a program hands its clock over once. The machine's, unless the
    /// store says otherwise.
    fn clock(&self) -> SharedClock {
        SystemClock::shared()
    }
}

/// One limit that a request must pass.
///
/// ```
/// use tower_warden::{Quota, limit::{LimiterName, store::Take}};
/// let name = LimiterName::new("login")?;
/// let guess = Take::new(name, "ada@example.com", Quota::per_hour(5)).on_trial();
/// assert_eq!((guess.cost, guess.hold), (1, true));
/// # Ok::<(), tower_warden::limit::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Take {
    /// Which limiter asks.
    pub limiter: LimiterName,
    /// Whom it counts.
    pub key: Key,
    /// By which quota.
    pub quota: Quota,
    /// How much the request weighs.
    pub cost: u32,
    /// Whether it is counted on trial: a [`Hold`] comes back, to be settled.
    pub hold: bool,
}

impl Take {
    /// A request that weighs 1, and counts once it is admitted.
    #[must_use]
    pub fn new(limiter: LimiterName, key: impl Into<Key>, quota: Quota) -> Self {
        Self { limiter, key: key.into(), quota, cost: 1, hold: false }
    }

    /// The same, of this weight; 0 only looks.
    #[must_use]
    pub fn with_cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// The same, counted on trial.
    #[must_use]
    pub fn on_trial(self) -> Self {
        Self { hold: true, ..self }
    }

    /// The hold on this request, which the store finds again by this mark.
    // Few requests are held, and all decisions are smaller for the box.
    #[must_use]
    pub fn held_by(&self, mark: Mark) -> Box<Hold> {
        Box::new(Hold {
            limiter: self.limiter,
            key: self.key.clone(),
            quota: self.quota,
            cost: self.cost,
            mark,
        })
    }
}

/// What became of one [`Take`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken {
    /// How the limit stands.
    pub decision: Decision,
    /// What to settle, where a hold was asked for and every limit admitted the request.
    pub hold: Option<Box<Hold>>,
}

impl Taken {
    /// Decided, and nothing is held.
    #[must_use]
    #[inline]
    pub fn new(decision: Decision) -> Self {
        Self { decision, hold: None }
    }

    /// The same with something to settle.
    #[must_use]
    #[inline]
    pub fn with_hold(self, hold: Option<Box<Hold>>) -> Self {
        Self { hold, ..self }
    }
}

/// One [`Taken`] for each [`Take`]: a list that reads as a slice. One alone takes no heap.
///
/// ```
/// use std::time::Duration;
/// use tower_warden::{Quota, limit::{Decision, store::{Decisions, Taken}}};
/// let admitted = Decision::admitted(Quota::per_minute(5), 4, Duration::from_secs(60));
/// let decisions = Decisions::from(Taken::new(admitted));
/// assert!(decisions.iter().all(|taken| taken.decision.is_allowed()));
/// ```
#[derive(Debug, Default)]
pub struct Decisions(SmallVec<[Taken; 1]>);

impl Decisions {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next.
    pub fn push(&mut self, taken: Taken) {
        self.0.push(taken);
    }
}

impl From<Taken> for Decisions {
    #[inline]
    fn from(taken: Taken) -> Self {
        Self(smallvec![taken])
    }
}

impl FromIterator<Taken> for Decisions {
    fn from_iter<I: IntoIterator<Item = Taken>>(taken: I) -> Self {
        Self(taken.into_iter().collect())
    }
}

impl Deref for Decisions {
    type Target = [Taken];

    #[inline]
    fn deref(&self) -> &[Taken] {
        &self.0
    }
}

impl DerefMut for Decisions {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Taken] {
        &mut self.0
    }
}

impl IntoIterator for Decisions {
    type Item = Taken;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.0.into_iter())
    }
}

/// An iterator over [`Decisions`], in their order.
#[derive(Debug)]
pub struct IntoIter(smallvec::IntoIter<[Taken; 1]>);

impl Iterator for IntoIter {
    type Item = Taken;

    fn next(&mut self) -> Option<Taken> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoIter {}

/// A request that was counted on trial. Not `Clone`: it is settled once.
///
/// ```
/// use tower_warden::{Quota, limit::{LimiterName, RateLimitStore, store::Take}};
/// use tower_warden::store::memory::MemoryRateLimitStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryRateLimitStore::new();
/// let guess = Take::new(LimiterName::new("login")?, "ada", Quota::per_hour(5)).on_trial();
/// let taken = store.take(&[guess]).await?.into_iter().next().ok_or("no decision")?;
/// assert_eq!(taken.decision.remaining(), 4);
///
/// let hold = taken.hold.ok_or("nothing is held")?;
/// assert_eq!(store.settle(*hold, false).await?.remaining(), 5); // given back
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Hold {
    /// As in the [`Take`].
    pub limiter: LimiterName,
    /// As in the [`Take`].
    pub key: Key,
    /// As in the [`Take`].
    pub quota: Quota,
    /// As in the [`Take`].
    pub cost: u32,
    /// By which the store finds the request again.
    pub mark: Mark,
}

/// By which a store finds a request that it counted on trial: what number that is, is its own
/// business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub(crate) u64);

impl Mark {
    /// The mark of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}
