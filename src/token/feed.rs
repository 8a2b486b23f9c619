//! Following what other servers revoke.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{task::AbortHandle, time::timeout};

use super::{Revocation, Revocations};
use crate::{SharedClock, StoreError, signals};

/// Where servers tell one another what they revoked: the SQL stores have one (`follow_revocations`);
/// others may be made of whatever keeps a numbered log for as long as an access token lives (Redis
/// Streams, say).
///
/// ```
/// use tower_warden::{StoreError, SystemClock, token::{Revocation, RevocationFeed, Revocations}};
/// use std::{sync::{Arc, Mutex}, time::SystemTime};
///
/// /// A log in this process.
/// #[derive(Clone, Debug, Default)]
/// struct Log(Arc<Mutex<Vec<Revocation>>>);
///
/// #[async_trait::async_trait]
/// impl RevocationFeed for Log {
///     async fn read(&self, after: u64, _: SystemTime) -> Result<Vec<Revocation>, StoreError> {
///         let log = self.0.lock().unwrap();
///         Ok(log.iter().filter(|entry| entry.seq > after).cloned().collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreError> {
/// let revocations = Revocations::new();
/// let following = revocations.follow(Log::default(), SystemClock::shared()).await?;
/// assert!(revocations.staleness().is_some());
/// drop(following); // from here on nothing more is heard
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait RevocationFeed: fmt::Debug + Send + Sync + 'static {
    /// What stands after this place and was written since then, in order; some thousands at most,
    /// and nothing only where there is no more.
    ///
    /// An entry may come to stand before one that was read already, within ten seconds: that long
    /// the same places are asked for again.
    async fn read(
        &self,
        after: u64,
        since: std::time::SystemTime,
    ) -> Result<Vec<Revocation>, StoreError>;

    /// Comes back when there may be something new. It may be late or never do so: the feed is read
    /// twice a second anyway.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

/// A feed is followed until this is dropped: keep it for as long as requests are served.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # async fn start(tokens: tower_warden::TokenService) -> Result<(), tower_warden::StoreError> {
/// tokens.follow_revocations().await?; // dropped at once: nothing is followed
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropped, it ends the following, and what other servers revoke is no longer heard of"]
pub struct Following(Option<AbortHandle>);

impl Following {
    /// Of a store that nobody else revokes anything in: there is nothing to follow.
    pub fn nothing() -> Self {
        Self(None)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// How long a feed is not asked at most.
const POLL: Duration = Duration::from_millis(400);

/// How long what is new is left to gather.
const GATHER: Duration = Duration::from_millis(20);

/// How long an entry may come to stand before one that was read: transactions commit out of order,
/// and a verb takes four seconds at most.
const READ_BACK: Duration = Duration::from_secs(15);

impl Revocations {
    /// Follows a feed. What is in force already is known when this comes back, so that a server which
    /// calls it before it serves serves no revoked token.
    ///
    /// # Errors
    /// Where the feed can't be read.
    pub async fn follow(
        &self,
        feed: impl RevocationFeed,
        clock: SharedClock,
    ) -> Result<Following, StoreError> {
        let mut follower = Follower {
            revocations: self.clone(),
            feed: Arc::new(feed),
            clock,
            seen: HashSet::new(),
            places: VecDeque::from([(Instant::now(), 0)]),
        };
        follower.catch_up().await?;
        Ok(Following(Some(tokio::spawn(follower.run()).abort_handle())))
    }
}

/// Nothing comes to stand before an entry as old as this, by whatever clock it was written.
const SETTLED: Duration = Duration::from_secs(120);

struct Follower {
    revocations: Revocations,
    feed: Arc<dyn RevocationFeed>,
    clock: SharedClock,
    /// The places that were read and will be again.
    seen: HashSet<u64>,
    /// The last place known, by when it was; the first of them longer ago than the feed is settled.
    places: VecDeque<(Instant, u64)>,
}

impl Follower {
    async fn run(mut self) {
        let mut failing = false;
        loop {
            if timeout(POLL, self.feed.changed()).await.is_ok() {
                // What is revoked together is read together.
                tokio::time::sleep(GATHER).await;
            }
            match self.catch_up().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "revocations can't be read; tokens are believed");
                    }
                    // A feed that fails at once is not asked without a pause.
                    tokio::time::sleep(POLL).await;
                }
            }
            let staleness = self.revocations.staleness().unwrap_or_default();
            signals::revocations(staleness, self.revocations.len());
        }
    }

    /// Reads all there is, from the place on that was the last one a while ago.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        while self.places.get(1).is_some_and(|(then, _)| began - *then > READ_BACK) {
            self.places.pop_front();
        }
        let now = self.clock.now();
        let mut after = self.places.front().map_or(0, |(_, place)| *place);
        let mut last = self.places.back().map_or(0, |(_, place)| *place);
        self.seen.retain(|place| *place > after);
        let since = self.revocations.in_force_since(now);
        loop {
            let entries = self.feed.read(after, since).await?;
            let Some(end) = entries.last() else { break };
            after = end.seq;
            last = last.max(end.seq);
            for entry in &entries {
                if self.seen.insert(entry.seq) {
                    self.revocations.apply(entry);
                }
                if let (1, Some((_, first))) = (self.places.len(), self.places.front_mut())
                    && entry.at + SETTLED < now
                {
                    *first = (*first).max(entry.seq);
                }
            }
        }
        if self.places.back().is_none_or(|(_, place)| *place != last) {
            self.places.push_back((began, last));
        }
        self.revocations.set_fresh(began);
        self.revocations.forget_ended_now_and_then(now);
        Ok(())
    }
}
