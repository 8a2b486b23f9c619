//! [`RedisRateLimitStore`].

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use smallvec::{SmallVec, smallvec};
use uuid::Uuid;

use super::{
    connection::Server,
    error::{RedisConfigError, unavailable},
    key,
    queue::{COURIERS, Queue, Route},
    refusals::Refusals,
    script::{Request, Row, Verdict, Window},
};
use crate::{
    Answer, Quota, SharedClock, StoreError, SystemClock,
    limit::{Decision, Decisions, Hold, Key, RESOLUTION, RateLimitStore, Take, Taken},
};

/// Limits in Redis; see the [module](super) docs.
///
/// # Keys
///
/// `{prefix}:{limiter}:{key}`, where the prefix is `rl`:
///
/// - a [`Key::ClientIp`] as it is shown: `rl:ip:203.0.113.9`, `rl:login:2001:db8:1:2::/64`;
/// - a [`Key::User`] as it is where it consists of letters, digits and `_.@-`: `rl:user:UUID`.
///   Other bytes are percent-escaped. What is longer than 64 bytes, or reads like an address,
///   stands as `#` and its SHA-256;
/// - a [`Key::Text`] likewise, after a `=`.
///
/// So no text that a client chooses reaches another key, or a cluster's slot of its choosing, and
/// none fills the memory.
#[derive(Clone)]
pub struct RedisRateLimitStore {
    prefix: Arc<str>,
    route: Route,
    refusals: Arc<Refusals>,
    /// Of this process, for what is remembered in it.
    clock: SharedClock,
    /// Started by the first decision, in the runtime that it runs in.
    queue: Arc<OnceLock<Queue>>,
}

impl RedisRateLimitStore {
    /// A store on this server: `redis://[user][:password@]host[:port][/database]`, `unix:///path`,
    /// or `rediss://…` for TLS (feature `tls`). Several URLs, separated by commas, are nodes of a
    /// cluster, of which the others are learnt. Sentinels are asked for the master by
    /// `redis-sentinel://[user][:password@]host[:port][,host[:port]…][/database]#service`, where user
    /// and password are the master's (`rediss-sentinel://…` for TLS).
    ///
    /// Connects at the first decision.
    ///
    /// # Errors
    /// [`RedisConfigError::Address`] where the URLs can't be read.
    pub fn new(urls: &str) -> Result<Self, RedisConfigError> {
        let route = Route {
            server: Server::parse(urls, COURIERS)?,
            window: Arc::new(Window::new(RESOLUTION)),
            patience: Duration::from_millis(400),
            clock: None,
            replaced: Arc::default(),
            breaks: Arc::default(),
        };
        Ok(Self {
            prefix: "rl".into(),
            route,
            refusals: Arc::new(Refusals::new(10_000)),
            clock: SystemClock::shared(),
            queue: Arc::default(),
        })
    }

    /// [`new`](Self::new) and [`probe`](Self::probe).
    ///
    /// # Errors
    /// As those.
    pub async fn connect(urls: &str) -> Result<Self, RedisConfigError> {
        let store = Self::new(urls)?;
        store.probe().await?;
        Ok(store)
    }

    /// Asks the server whether it would have us: counts two requests under a key of its own,
    /// which lives for a second.
    ///
    /// A server that does not answer, or is not ready yet, is no error: decisions are
    /// [unavailable](StoreError::is_unavailable) until it is.
    ///
    /// # Errors
    /// [`RedisConfigError`] where waiting won't help: a wrong password, a missing permission, an
    /// unknown command.
    pub async fn probe(&self) -> Result<(), RedisConfigError> {
        // A key that is not there yet, and then is: each has commands of its own.
        let (quota, key) = (Quota::per_second(u32::MAX), Key::from(&*Uuid::new_v4().to_string()));
        let ask = |cost| self.request(false, [("probe", &key, quota, cost, false, 0)]);
        let answer = self.route.ask_once(&[&ask(1), &ask(2)]).await;
        let Err(error) = answer else { return Ok(()) };
        RedisConfigError::of(error.clone())?;
        tracing::warn!(%error, "Redis does not answer; it is used once it does");
        Ok(())
    }

    /// Begins all keys with this instead of `rl`. Taken as it is.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self.anew() }
    }

    /// Remembers about so many instants per key, instead of [`RESOLUTION`]: more is more exact, and
    /// takes more memory.
    #[must_use]
    pub fn with_resolution(self, resolution: u32) -> Self {
        let mut store = self.anew();
        store.route.window = Arc::new(Window::new(resolution));
        store
    }

    /// The longest that it takes to connect, or to be answered, before the connection is given up
    /// for a new one; 400 ms unless set. How long a *request* waits is
    /// [`FallbackStore`](crate::limit::FallbackStore)'s budget, which is shorter.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        let mut store = self.anew();
        store.route.patience = patience;
        store
    }

    /// Remembers at most so many refusals, instead of 10,000: who is refused again before the
    /// instant that the refusal named is so without a call. For ten seconds at most, and for one
    /// where requests are taken on trial.
    #[must_use]
    pub fn with_remembered_refusals(self, refusals: usize) -> Self {
        Self { refusals: Arc::new(Refusals::new(refusals)), ..self }
    }

    /// Takes time from this clock instead of the server and the machine.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock_for_tests(self, clock: SharedClock) -> Self {
        let mut store = self.anew();
        store.route.clock = Some(Arc::clone(&clock));
        store.clock = clock;
        store
    }

    /// How many values at our keys were not ours, and have been replaced: more than none means that
    /// something else writes there.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.route.replaced.load(Ordering::Relaxed)
    }

    /// What shares a queue shares its settings.
    fn anew(self) -> Self {
        Self { queue: Arc::default(), ..self }
    }

    fn request<'a>(
        &self,
        settles: bool,
        rows: impl IntoIterator<Item = (&'a str, &'a Key, Quota, u32, bool, u64)>,
    ) -> Request {
        let row = |(limiter, key, quota, cost, flag, mark)| Row {
            key: key::name(&self.prefix, limiter, key),
            quota,
            cost,
            flag,
            mark,
        };
        Request { settles, rows: rows.into_iter().map(row).collect() }
    }

    /// Of several limits none is remembered: how the others stand must be asked anyway.
    fn recall(&self, request: &Request) -> Option<Decision> {
        match &request.rows[..] {
            [row] => self.refusals.recall(row, self.clock.monotonic()),
            _ => None,
        }
    }

    async fn ask(&self, request: Request) -> Result<Verdict, StoreError> {
        let queue = self.queue.get_or_init(|| Queue::spawn(&self.route));
        let row = request.rows.first().filter(|_| request.rows.len() == 1).cloned();
        let (settles, asked) = (request.settles, self.clock.monotonic());
        let verdict = queue.ask(request).await.map_err(unavailable)?;
        match (row, verdict.first()) {
            (Some(row), _) if settles => self.refusals.forget(&row.key),
            (Some(row), Some((decision, _))) => {
                self.refusals.note(&row, *decision, asked, self.clock.monotonic());
            }
            _ => {}
        }
        Ok(verdict)
    }
}

impl RateLimitStore for RedisRateLimitStore {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        let rows = takes
            .iter()
            .map(|take| (take.limiter, &take.key, take.quota, take.cost, take.hold, 0));
        let request = self.request(false, rows);
        if let Some(decision) = self.recall(&request) {
            return Answer::Ready(Ok(smallvec![Taken { decision, hold: None }]));
        }
        let (store, takes) = (self.clone(), SmallVec::<[Take; 2]>::from(takes));
        Answer::pending(async move {
            let verdict = store.ask(request).await?;
            let all = verdict.iter().all(|(decision, _)| decision.allowed);
            let taken = takes.iter().zip(verdict).map(|(take, (decision, mark))| Taken {
                decision,
                hold: (all && take.hold && take.cost > 0).then(|| take.hold(mark)),
            });
            Ok(taken.collect())
        })
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let row = (hold.limiter, &hold.key, hold.quota, hold.cost, keep, hold.mark.0);
        let (store, request) = (self.clone(), self.request(true, [row]));
        Answer::pending(async move {
            let verdict = store.ask(request).await?;
            let decision = verdict.first().map(|(decision, _)| *decision);
            decision.ok_or_else(|| StoreError::internal("no decision came back"))
        })
    }
}

impl fmt::Debug for RedisRateLimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRateLimitStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
