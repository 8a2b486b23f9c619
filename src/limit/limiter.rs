//! [`RateLimiter`]: limits that a handler asks for itself.

use std::{fmt, future::Future, sync::Arc};

use http::{HeaderMap, Response, StatusCode};
use smallvec::{SmallVec, smallvec};

use super::{
    Decision, Exceeded, Key, LimitHeaders, LimiterName, OnFailure, Quota, RateLimitStore,
    charge::Counted,
    headers::{Report, Reports, Writer},
    holds,
    store::{Hold, Take, Taken},
    verdict::decided,
};
use crate::{Problem, SharedClock, StoreError, signals};

/// A limit for handlers: by what only they know (the account of a login, each message of a WebSocket,
/// each item of a batch), with the promise that [`RateLimitLayer`](crate::RateLimitLayer) gives, in the
/// same store.
///
/// - [`take`](Self::take) counts one, or says why not: `?` makes the 429 of it in a handler that answers
///   [`Problem`]s.
/// - [`ask`](Self::ask) begins a question that says more: its weight, another quota, further limits that
///   must admit it too, or that it is only [reserved](Ask::reserve) until it is known whether it counts.
/// - What comes back tells how the limits stand, and [writes](Standing::write) the headers that layers
///   write. Layers around the handler join theirs.
/// - [`peek`](Self::peek) and [`reset`](Self::reset) are for administrators.
///
/// ```
/// use tower_warden::{Quota, RateLimiter, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let messages = RateLimiter::new(MemoryRateLimitStore::new(), "messages", Quota::per_minute(2));
/// let room = "room 7";
/// assert!(messages.take(room).await.is_ok());
///
/// // Reserved while it is not known whether it counts.
/// let reserved = messages.ask(room).reserve().await?;
/// let refused = messages.take(room).await.unwrap_err();
/// assert_eq!(refused.retry_after(), Some(1)); // only due to what is in flight
/// reserved.give_back().await;
///
/// assert_eq!(messages.peek(room).await?.remaining(), 1);
/// messages.reset(room).await?;
/// assert_eq!(messages.peek(room).await?.remaining(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RateLimiter {
    name: LimiterName,
    quota: Quota,
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    store: Arc<dyn RateLimitStore>,
    clock: SharedClock,
    on_failure: OnFailure,
    headers: Writer,
}

impl RateLimiter {
    /// A limit of this name, by this quota unless a question says otherwise.
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn new(store: impl RateLimitStore, name: impl AsRef<str>, quota: Quota) -> Self {
        let name = LimiterName::new(name.as_ref()).unwrap_or_else(|invalid| panic!("{invalid}"));
        let shared = Shared {
            clock: store.clock(),
            store: Arc::new(store),
            on_failure: OnFailure::Allow,
            headers: Writer::default(),
        };
        Self { name, quota, shared: Arc::new(shared) }
    }

    /// The same with another choice of what becomes of a question while the store can't decide.
    pub fn with_on_failure(self, on_failure: OnFailure) -> Self {
        self.change(|shared| shared.on_failure = on_failure)
    }

    /// The same with another choice of the headers that tell how the limits stand.
    pub fn with_headers(self, headers: LimitHeaders) -> Self {
        self.change(|shared| shared.headers = Writer::new(headers))
    }

    /// The same with another clock than the store's, for the time of day in the headers.
    pub fn with_clock(self, clock: SharedClock) -> Self {
        self.change(|shared| shared.clock = clock)
    }

    /// What tells this limiter from others.
    #[must_use]
    pub fn name(&self) -> LimiterName {
        self.name
    }

    /// Counts one for this key.
    ///
    /// # Errors
    /// [`RateLimited`] where there is no room, or where the store can't decide and
    /// [`OnFailure::Deny`] was chosen.
    pub async fn take(&self, key: impl Into<Key>) -> Result<Standing, RateLimited> {
        self.ask(key).take().await
    }

    /// A question about this key: one, by this limiter's quota, unless it is changed.
    pub fn ask(&self, key: impl Into<Key>) -> Ask {
        let take = Take::new(self.name, key, self.quota);
        Ask { shared: Arc::clone(&self.shared), takes: smallvec![take] }
    }

    /// How the limit stands for this key. Counts nothing.
    ///
    /// # Errors
    /// [`StoreError`] where the store can't decide.
    pub async fn peek(&self, key: impl Into<Key>) -> Result<Decision, StoreError> {
        let take = Take::new(self.name, key, self.quota).with_cost(0);
        let answer = self.shared.store.take(std::slice::from_ref(&take));
        let taken = answer.await?.into_iter().next();
        let taken = taken.ok_or_else(|| StoreError::internal("no decision came back"))?;
        Ok(taken.decision)
    }

    /// Forgets what was counted for this key, reservations included.
    ///
    /// # Errors
    /// [`StoreError`] where the store fails, or does not offer that.
    pub async fn reset(&self, key: impl Into<Key>) -> Result<(), StoreError> {
        self.shared.store.reset(self.name, &key.into()).await
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("store", &self.shared.store)
            .finish_non_exhaustive()
    }
}

/// A question to a [`RateLimiter`], which nothing is counted by until it is asked.
///
/// ```
/// use tower_warden::{ClientIp, Quota, RateLimiter, store::memory::MemoryRateLimitStore};
/// # async fn password_is_right() -> bool { false }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryRateLimitStore::new();
/// let by_address = RateLimiter::new(store.clone(), "login", Quota::per_hour(20));
/// let by_account = RateLimiter::new(store, "account", Quota::per_hour(50));
/// # let client = ClientIp::from(std::net::IpAddr::from([203, 0, 113, 9]));
///
/// // Both or none; taken before the password is looked at, so that parallel guesses can't slip through.
/// let guess = by_address.ask(client).and(by_account.ask("ada@example.com")).reserve().await?;
/// if password_is_right().await { guess.give_back().await } else { guess.keep().await };
/// assert_eq!(by_account.peek("ada@example.com").await?.remaining(), 49);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a question does nothing until it is asked"]
pub struct Ask {
    shared: Arc<Shared>,
    takes: SmallVec<[Take; 2]>,
}

impl Ask {
    /// The same, of this weight under each of its limits; 0 only looks.
    pub fn with_cost(mut self, cost: u32) -> Self {
        self.takes.iter_mut().for_each(|take| take.cost = cost);
        self
    }

    /// The same, by this quota under each of its limits.
    pub fn with_quota(mut self, quota: Quota) -> Self {
        self.takes.iter_mut().for_each(|take| take.quota = quota);
        self
    }

    /// Both questions at once: what one refuses the other doesn't count. The store, and what is chosen
    /// beside it, are the first one's. No limiter and key may stand in it twice.
    pub fn and(mut self, other: Self) -> Self {
        self.takes.extend(other.takes);
        self
    }

    /// Counts it.
    ///
    /// # Errors
    /// As [`RateLimiter::take`].
    pub async fn take(self) -> Result<Standing, RateLimited> {
        let (standing, _) = self.put().await?;
        Ok(standing)
    }

    /// Counts it on trial, until the [`Reservation`] is kept or given back.
    ///
    /// # Errors
    /// As [`RateLimiter::take`].
    pub async fn reserve(mut self) -> Result<Reservation, RateLimited> {
        self.takes.iter_mut().for_each(|take| take.hold = true);
        let (standing, holds) = self.put().await?;
        Ok(Reservation { standing, holds })
    }

    async fn put(self) -> Result<(Standing, Vec<Hold>), RateLimited> {
        let Self { shared, takes } = self;
        let taken = match shared.store.take(&takes).await {
            Ok(taken) => taken,
            Err(error) => {
                let error_shown = &error as &dyn std::error::Error;
                tracing::debug!(error = error_shown, policy = ?shared.on_failure, "limits can't be decided");
                signals::limit_undecided(shared.on_failure.as_str());
                return match shared.on_failure {
                    OnFailure::Allow => {
                        Ok((Standing { shared, reports: Reports::default() }, Vec::new()))
                    }
                    OnFailure::Deny => Err(RateLimited(Why::Undecided(error))),
                };
            }
        };
        let (mut reports, mut holds) = (Reports::default(), Vec::new());
        for (take, Taken { decision, hold }) in takes.iter().zip(taken) {
            decided(take.limiter, decision.is_allowed());
            reports.0.push(Report { limiter: take.limiter, decision });
            holds.extend(hold.map(|hold| *hold));
        }
        if let Some(longest) = reports.refusal() {
            let exceeded = Exceeded::new(*longest, &reports);
            let standing = Standing { shared, reports };
            return Err(RateLimited(Why::Exceeded(Box::new((exceeded, standing)))));
        }
        Ok((Standing { shared, reports }, holds))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ask").field(&self.takes).finish()
    }
}

/// How limits stand after a question. With the feature `axum` it is a part of a response:
/// `(standing, "hello")`.
///
/// ```
/// use tower_warden::{Quota, RateLimiter, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let items = RateLimiter::new(MemoryRateLimitStore::new(), "items", Quota::per_hour(1_000));
/// let standing = items.ask("ada").with_cost(40).take().await?;
/// let mut response = http::Response::new("imported");
/// standing.write(&mut response);
/// assert_eq!(response.headers()["x-ratelimit-remaining"], "960");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Standing {
    shared: Arc<Shared>,
    reports: Reports,
}

impl Standing {
    /// What each limiter decided, in the order of the question; nothing where the store could not.
    pub fn decisions(&self) -> impl Iterator<Item = (LimiterName, Decision)> + '_ {
        self.reports.0.iter().map(|report| (report.limiter, report.decision))
    }

    /// Writes the headers of the limits to a response. Layers around join theirs.
    pub fn write<B>(&self, response: &mut Response<B>) {
        let status = response.status();
        self.write_headers(response.headers_mut(), status);
    }

    pub(crate) fn write_headers(&self, headers: &mut HeaderMap, status: StatusCode) {
        self.shared.headers.write(&self.reports, headers, status, &self.shared.clock);
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.decisions()).finish()
    }
}

/// What was counted on trial. Dropped, it counts for good: a client that hangs up hasn't shown that its
/// guess was right.
///
/// ```
/// use tower_warden::{Quota, RateLimiter, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tries = RateLimiter::new(MemoryRateLimitStore::new(), "tries", Quota::per_hour(5));
/// tries.ask("ada").reserve().await?.give_back().await; // right: doesn't count
/// tries.ask("ada").reserve().await?.keep().await; // wrong: counts
/// drop(tries.ask("ada").reserve().await?); // hung up: counts
/// assert_eq!(tries.peek("ada").await?.remaining(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a reservation that is dropped counts"]
pub struct Reservation {
    standing: Standing,
    holds: Vec<Hold>,
}

impl Reservation {
    /// How the limits stood when it was taken.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// It counts.
    pub fn keep(self) -> impl Future<Output = Standing> + Send + 'static {
        self.settle(|_| true)
    }

    /// It does not count. Once this is called it is carried through, though nobody waits for the
    /// answer.
    pub fn give_back(self) -> impl Future<Output = Standing> + Send + 'static {
        self.settle(|_| false)
    }

    /// It counts under some of its limits.
    pub fn settle(
        mut self,
        mut counts: impl FnMut(LimiterName) -> bool,
    ) -> impl Future<Output = Standing> + Send + 'static {
        let Standing { shared, reports } = self.standing.clone();
        let counts = |limiter| if counts(limiter) { Counted::Yes } else { Counted::No };
        let answer = holds::settle(&*shared.store, &mut self.holds, counts, reports);
        async move { Standing { reports: answer.await, shared } }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        holds::end(&*self.standing.shared.store, &mut self.holds, |_| true);
    }
}

/// Why a [`RateLimiter`] admits nothing. Becomes the [`Problem`] of it, with `Retry-After` and the
/// headers of the limits.
///
/// ```
/// use tower_warden::{Problem, Quota, RateLimiter, store::memory::MemoryRateLimitStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let exports = RateLimiter::new(MemoryRateLimitStore::new(), "exports", Quota::per_hour(1));
/// exports.take("ada").await?;
///
/// let refused = exports.take("ada").await.unwrap_err();
/// assert_eq!(refused.retry_after(), Some(3600));
/// let problem = Problem::from(refused).into_http(); // what `?` answers in a handler
/// assert_eq!((problem.status().as_u16(), &problem.headers()["retry-after"]), (429, &"3600".parse()?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RateLimited(Why);

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("the limit {:?} is reached", .0.0.limiter)]
    Exceeded(Box<(Exceeded, Standing)>),
    #[error("the limits can't be decided")]
    Undecided(#[source] StoreError),
}

impl RateLimited {
    /// Which limiters refuse; `None` where the store could not decide.
    #[must_use]
    pub fn exceeded(&self) -> Option<&Exceeded> {
        match &self.0 {
            Why::Exceeded(refused) => Some(&refused.0),
            Why::Undecided(_) => None,
        }
    }

    /// In how many seconds the same may be admitted, if no other comes first; `None` where it weighs
    /// more than the limit.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.exceeded().map_or(Some(1), |exceeded| exceeded.retry_after)
    }
}

impl From<RateLimited> for Problem {
    fn from(RateLimited(why): RateLimited) -> Self {
        match why {
            Why::Undecided(_) => Self::unavailable(1),
            Why::Exceeded(refused) => {
                let (exceeded, standing) = *refused;
                let mut headers = HeaderMap::new();
                standing.write_headers(&mut headers, StatusCode::TOO_MANY_REQUESTS);
                let wait =
                    exceeded.retry_after.map(|wait| (http::header::RETRY_AFTER, wait.into()));
                let headers = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
                headers.chain(wait).fold(exceeded.to_problem(), |problem, (name, value)| {
                    problem.with_header(name, value)
                })
            }
        }
    }
}
