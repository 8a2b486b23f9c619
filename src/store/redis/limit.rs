//! [`RedisRateLimitStore`].

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use smallvec::{SmallVec, smallvec};
use uuid::Uuid;

use super::{
    connection::Server,
    error::RedisConfigError,
    job::Route,
    key,
    leases::{Asking, Ended, Leases, Step},
    probe,
    queue::Queue,
    refusals::Refusals,
    script::{Found, Request, Row, Verb, Window},
};
use crate::{
    Answer, Quota, SharedClock, StoreError, SystemClock,
    limit::{
        Calls, Decision, Key, LimiterName, RateLimitStore,
        store::{Decisions, Hold, RESOLUTION, Take, Taken},
    },
};

/// The script takes what is longer for none of ours.
const MOST_INSTANTS: u32 = 1024;

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
/// - a [`Key::Text`] likewise, after a `=`; a [`Key::Number`] after a `+`.
///
/// So no text that a client chooses reaches another key, or a cluster's slot of its choosing, and
/// none fills the memory.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_warden::{Quota, RateLimitLayer, Rule, store::redis::RedisRateLimitStore};
/// # async fn example() -> Result<(), tower_warden::store::redis::RedisConfigError> {
/// // A cluster, of which the other nodes are learnt; keys begin with `shop:`.
/// let redis = RedisRateLimitStore::connect("redis://10.0.0.5:6379,redis://10.0.0.6:6379").await?;
/// let redis = redis.with_prefix("shop").with_patience(Duration::from_millis(200));
/// let layer = RateLimitLayer::new(redis, Rule::per_ip("ip", Quota::per_minute(100)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisRateLimitStore(Arc<Shared>);

/// What clones share: each decision holds it while it waits.
struct Shared {
    settings: Settings,
    queue: Queue,
}

#[derive(Clone)]
struct Settings {
    prefix: Arc<str>,
    server: Server,
    route: Route,
    refusals: Arc<Refusals>,
    leases: Option<Arc<Leases>>,
    /// Of this process, for what is remembered in it.
    clock: SharedClock,
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
            window: Arc::new(Window::new(RESOLUTION)),
            patience: Duration::from_millis(400),
            clock: None,
            replaced: Arc::default(),
            calls: Calls::new(),
        };
        Ok(Self::of(Settings {
            prefix: "rl".into(),
            server: Server::parse(urls)?,
            route,
            refusals: Arc::new(Refusals::new(10_000)),
            leases: None,
            clock: SystemClock::shared(),
        }))
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

    /// Asks the server whether it would have us, with all that limits need, under keys of its own
    /// which live for some milliseconds; and whether it is a node of a cluster, which is used then.
    ///
    /// A server that does not answer, or is not ready yet, is no error: decisions are
    /// [unavailable](StoreError::is_unavailable) until it is.
    ///
    /// # Errors
    /// [`RedisConfigError`] where waiting won't help: a wrong password, a missing permission, an
    /// unknown command, a cluster whose nodes can't be reached at the addresses that they name.
    pub async fn probe(&self) -> Result<(), RedisConfigError> {
        let Settings { server, route, .. } = &self.0.settings;
        // Nobody has been there before.
        let [one, two] = [Uuid::new_v4(), Uuid::new_v4()].map(|id| {
            let text = id.simple().to_string();
            self.0.key("probe", &Key::from(text.as_str()))
        });
        probe::ask(server, route, &one, &two).await
    }

    /// Begins all keys with this instead of `rl`. Taken as it is.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self::of(Settings { prefix: prefix.into(), ..self.settings() })
    }

    /// Remembers about so many instants per key, instead of [`RESOLUTION`], at most 1,024: more is
    /// more exact, and takes more memory.
    #[must_use]
    pub fn with_resolution(self, resolution: u32) -> Self {
        let mut settings = self.settings();
        settings.route.window = Arc::new(Window::new(resolution.min(MOST_INSTANTS)));
        Self::of(settings)
    }

    /// The longest that it takes to connect, or to be answered, before the connection is given up
    /// for a new one; 400 ms unless set. How long a *request* waits is
    /// [`FallbackStore`](crate::limit::FallbackStore)'s budget, which is shorter.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        let mut settings = self.settings();
        settings.route.patience = patience;
        Self::of(settings)
    }

    /// Remembers at most so many refusals, instead of 10,000: who is refused again before the
    /// instant that the refusal named is so without a call. For ten seconds at most, and for one
    /// where requests are taken on trial.
    #[must_use]
    pub fn with_remembered_refusals(self, refusals: usize) -> Self {
        Self::of(Settings { refusals: Arc::new(Refusals::new(refusals)), ..self.settings() })
    }

    /// Takes *leases* for clients of which much is asked: a handful of admissions at a time, which are
    /// spent in this process without a call. Off unless asked for; no limit is ever exceeded by it.
    ///
    /// A lease lasts a 64th of the window, and a second at most. Near the limit there is none: it takes
    /// a sixteenth of what is left. What wasn't spent is given back at its end. Admissions by a lease
    /// are counted as if they came at its end, so there is room again up to a lease late, and a client
    /// may be refused while servers hold leases that they don't spend. Requests under one limit only,
    /// of cost 1, which nobody gives back, are admitted by leases.
    #[must_use]
    pub fn with_leases(self) -> Self {
        Self::of(Settings { leases: Some(Arc::default()), ..self.settings() })
    }

    /// Takes time from this clock instead of the server and the machine.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock_for_tests(self, clock: SharedClock) -> Self {
        let mut settings = self.settings();
        settings.route.clock = Some(Arc::clone(&clock));
        Self::of(Settings { clock, ..settings })
    }

    /// Takes the time of this process from this clock.
    #[doc(hidden)]
    #[must_use]
    pub fn with_own_clock_for_tests(self, clock: SharedClock) -> Self {
        Self::of(Settings { clock, ..self.settings() })
    }

    /// How many values at our keys were not ours, and have been replaced: more than none means that
    /// something else writes there.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.0.settings.route.replaced.load(Ordering::Relaxed)
    }

    /// What shares a queue shares its settings.
    fn of(settings: Settings) -> Self {
        let queue = Queue::new(settings.server.clone(), settings.route.clone());
        Self(Arc::new(Shared { settings, queue }))
    }

    fn settings(&self) -> Settings {
        self.0.settings.clone()
    }
}

impl Shared {
    fn key(&self, limiter: &str, key: &Key) -> String {
        key::name(&self.settings.prefix, limiter, key)
    }

    fn row(&self, take: &Take) -> Row {
        let (key, flag) = (self.key(take.limiter.as_str(), &take.key), take.hold);
        Row { key, quota: take.quota, cost: take.cost, flag, mark: 0, lease: None }
    }

    fn rows(&self, takes: &[Take]) -> SmallVec<[Row; 2]> {
        takes.iter().map(|take| self.row(take)).collect()
    }

    /// Asks for a lease, of which this request is the first to spend; gives back what is left of those
    /// before.
    async fn ask_for_lease(
        self: Arc<Self>,
        row: Row,
        mut asking: Asking,
    ) -> Result<Decision, StoreError> {
        let Settings { refusals, clock, .. } = &self.settings;
        let (shared, ended, before) = (Arc::clone(&self), asking.ended(), row.clone());
        if !ended.is_empty() {
            tokio::spawn(async move { shared.give_back(&before, ended).await });
        }
        let asked = clock.monotonic();
        let rows = smallvec![Row { lease: Some(asking.wanted), ..row.clone() }];
        let verdict = self.queue.ask(Request { verb: Verb::Take, rows }).await?;
        let Some(found) = verdict.first().copied() else {
            return Err(StoreError::internal("no decision came back"));
        };
        if !found.is_allowed() {
            let rows = std::slice::from_ref(&row);
            refusals.note(rows, &[found.decision], asked, clock.monotonic());
        }
        if let Some(lasts) = asking.granted(&found, asked, clock.monotonic()) {
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                let ended = asking.end(shared.settings.clock.monotonic());
                shared.give_back(&row, ended).await;
            });
        }
        Ok(found.decision)
    }

    /// Gives back what is left of leases. What doesn't get there stays counted.
    async fn give_back(&self, row: &Row, ended: SmallVec<[Ended; 1]>) {
        for Ended { left, mark, wanted } in ended {
            let rows = smallvec![Row { cost: left, mark, lease: Some(wanted), ..row.clone() }];
            _ = self.queue.ask(Request { verb: Verb::Settle, rows }).await;
            self.settings.refusals.forget(&row.key, self.settings.clock.monotonic());
        }
    }
}

impl RateLimitStore for RedisRateLimitStore {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        let rows = self.0.rows(takes);
        let Settings { refusals, clock, .. } = &self.0.settings;
        if let Some(decisions) = refusals.recall(&rows, clock.monotonic()) {
            let taken = decisions.into_iter().map(Taken::new);
            return Answer::Ready(Ok(taken.collect()));
        }
        if let (Some(leases), [row]) = (&self.0.settings.leases, &rows[..]) {
            match leases.next(row, clock.monotonic()) {
                Step::Spent(decision) => return Answer::Ready(Ok(Taken::new(decision).into())),
                Step::Ask(asking) => {
                    let (shared, row) = (Arc::clone(&self.0), row.clone());
                    return Answer::pending(async move {
                        shared
                            .ask_for_lease(row, asking)
                            .await
                            .map(|found| Taken::new(found).into())
                    });
                }
                Step::NotHot => {}
            }
        }
        let (shared, takes) = (Arc::clone(&self.0), SmallVec::<[Take; 2]>::from(takes));
        Answer::pending(async move {
            let Settings { refusals, clock, .. } = &shared.settings;
            let asked = clock.monotonic();
            let verdict = shared.queue.ask(Request { verb: Verb::Take, rows }).await?;
            let all = verdict.iter().all(Found::is_allowed);
            if !all {
                let decisions: SmallVec<[_; 2]> =
                    verdict.iter().map(|found| found.decision).collect();
                refusals.note(&shared.rows(&takes), &decisions, asked, clock.monotonic());
            }
            let taken = takes.iter().zip(verdict).map(|(take, found)| {
                let held = all && take.hold && take.cost > 0;
                Taken::new(found.decision).with_hold(held.then(|| take.held_by(found.mark)))
            });
            Ok(taken.collect())
        })
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let shared = Arc::clone(&self.0);
        Answer::pending(async move {
            let Settings { refusals, clock, .. } = &shared.settings;
            let Hold { quota, cost, mark, .. } = hold;
            let key = shared.key(hold.limiter.as_str(), &hold.key);
            let row = Row { key: key.clone(), quota, cost, flag: keep, mark: mark.0, lease: None };
            let verdict =
                shared.queue.ask(Request { verb: Verb::Settle, rows: smallvec![row] }).await?;
            refusals.forget(&key, clock.monotonic());
            let decision = verdict.first().map(|found| found.decision);
            decision.ok_or_else(|| StoreError::internal("no decision came back"))
        })
    }

    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        let (shared, key) = (Arc::clone(&self.0), self.0.key(limiter.as_str(), key));
        Answer::pending(async move {
            let Settings { refusals, leases, clock, .. } = &shared.settings;
            if let Some(leases) = leases {
                leases.forget(&key);
            }
            let (quota, name) = (Quota::per_second(1), key.clone());
            let row = Row { key: name, quota, cost: 0, flag: false, mark: 0, lease: None };
            shared.queue.ask(Request { verb: Verb::Reset, rows: smallvec![row] }).await?;
            refusals.forget(&key, clock.monotonic());
            Ok(())
        })
    }

    fn clock(&self) -> SharedClock {
        Arc::clone(&self.0.settings.clock)
    }

    fn calls(&self) -> Option<Calls> {
        Some(self.0.settings.route.calls.clone())
    }
}

impl fmt::Debug for RedisRateLimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = &self.0.settings.prefix;
        f.debug_struct("RedisRateLimitStore").field("prefix", prefix).finish_non_exhaustive()
    }
}
