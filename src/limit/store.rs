//! The contract of a store of limits.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use super::{Decision, Quota};
use crate::{Answer, ClientIp, StoreError, UserId};

/// Where the counts of a [`RateLimitLayer`](crate::RateLimitLayer) are kept.
///
/// A store answers two questions, each atomically:
///
/// - [`take`](RateLimitStore::take): is there room for this request under all of these limits? If
///   so, count it under each; if one refuses, under none.
/// - [`settle`](RateLimitStore::settle): a request that was counted on trial turned out to be
///   one that counts, or one that doesn't.
///
/// How it decides is [`Log`](super::Log)'s arithmetic, whatever the store is made of: the same
/// histories give the same decisions. Beyond that:
///
/// - Clones of a store share its state.
/// - The clock is the store's own: one clock for all who share its state.
/// - State may be forgotten one window after the last request that was counted, not earlier. A
///   bounded store that must forget earlier forgets those furthest from their limit.
/// - A refusal writes nothing.
/// - A store that can't decide answers [`StoreError`], soon; it never makes up a decision.
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
}

/// One limit that a request must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The name of the limiter, such as `ip`: lower-case letters, digits, `-` and `_`.
    pub limiter: &'static str,
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
    /// What settles this request, for stores. Few requests are held, and all decisions are smaller
    /// for the box.
    #[must_use]
    pub fn hold(&self, mark: Mark) -> Box<Hold> {
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
pub struct Taken {
    /// How the limit stands.
    pub decision: Decision,
    /// What to settle, where a hold was asked for and every limit admitted the request.
    pub hold: Option<Box<Hold>>,
}

/// One [`Taken`] for each [`Take`].
pub type Decisions = SmallVec<[Taken; 1]>;

/// A request that was counted on trial. Not `Clone`: it is settled once.
#[derive(Debug)]
pub struct Hold {
    /// As in the [`Take`].
    pub limiter: &'static str,
    /// As in the [`Take`].
    pub key: Key,
    /// As in the [`Take`].
    pub quota: Quota,
    /// As in the [`Take`].
    pub cost: u32,
    /// The store's own mark of the request.
    pub mark: Mark,
}

/// By which a store finds a request that it counted on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u64);

/// Whom a limiter counts.
///
/// Cheap to clone. The text of it may come from a client: a store that joins it to other text
/// (Redis) escapes or hashes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A client's address.
    ClientIp(ClientIp),
    /// A user.
    User(UserId),
    /// Anything else.
    Text(Arc<str>),
}

impl From<ClientIp> for Key {
    fn from(ip: ClientIp) -> Self {
        Self::ClientIp(ip)
    }
}

impl From<&UserId> for Key {
    fn from(id: &UserId) -> Self {
        Self::User(id.clone())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl<S: RateLimitStore + ?Sized> RateLimitStore for Arc<S> {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        (**self).take(takes)
    }

    fn take_now(&self, take: &Take) -> Option<Result<Taken, StoreError>> {
        (**self).take_now(take)
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        (**self).settle(hold, keep)
    }
}
