//! Ours and the rivals, each as an application would use it.

use std::{fmt::Display, net::Ipv4Addr, sync::Arc, time::Duration};

use deadpool_redis::Runtime;
use redis::{
    Script,
    aio::{ConnectionManager, MultiplexedConnection},
};
use tower_warden::{
    ClientIp, Quota,
    limit::{Key, RateLimitStore, store::Take},
    store::redis::RedisRateLimitStore,
};
use trypema::{
    BucketSize, RateLimit, RateLimitDecision, RateLimiterBuilder, WindowSize,
    redis::{RedisKey, RedisRateLimiterProvider},
};

/// One limiter, as a bench sees it: is there room for this client?
pub(crate) trait Limiter: Clone + Send + Sync + 'static {
    fn admits(&self, client: Ipv4Addr) -> impl Future<Output = bool> + Send;
}

/// Ours, with so many limits for each request, all of them by the client's address.
#[derive(Clone)]
pub(crate) struct TowerWarden {
    pub(crate) store: RedisRateLimitStore,
    pub(crate) quota: Quota,
    pub(crate) limiters: &'static [&'static str],
}

impl TowerWarden {
    pub(crate) fn new(url: &str, limit: u32) -> Self {
        // trypema's cleaning may keep the server for hundreds of milliseconds.
        let store = RedisRateLimitStore::new(url).expect("a URL");
        let store = store.with_patience(Duration::from_secs(5));
        Self { store, quota: Quota::per_minute(limit), limiters: &["ip"] }
    }

    pub(crate) fn takes(&self, client: Ipv4Addr) -> impl Iterator<Item = Take> {
        let key = Key::from(ClientIp::from(std::net::IpAddr::from(client)));
        let quota = self.quota;
        let take = move |limiter: &&'static str| {
            Take::new(limiter.parse().expect("a name"), key.clone(), quota)
        };
        self.limiters.iter().map(take)
    }
}

impl Limiter for TowerWarden {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        let taken = match self.limiters.len() {
            1 => self.store.take(self.takes(client).next().as_slice()),
            _ => self.store.take(&self.takes(client).collect::<Vec<_>>()),
        };
        taken.await.expect("a decision").iter().all(|taken| taken.decision.is_allowed())
    }
}

/// The script of two counters, and what all who call it say.
#[derive(Clone)]
pub(crate) struct TwoCounters {
    script: Arc<Script>,
    limit: u32,
}

impl TwoCounters {
    pub(crate) const CODE: &str = include_str!("two_counters.lua");

    pub(crate) fn new(limit: u32) -> Self {
        Self { script: Arc::new(Script::new(Self::CODE)), limit }
    }

    async fn ask(
        &self,
        connection: &mut impl redis::aio::ConnectionLike,
        limiter: impl Display,
        client: Ipv4Addr,
    ) -> bool {
        let mut call = self.script.key(format!("rl:{limiter}:{client}"));
        call.arg(60_000).arg(self.limit);
        let (admitted, _remaining, _reset): (u8, u32, u64) =
            call.invoke_async(connection).await.expect("a decision");
        admitted == 1
    }
}

/// A connection from deadpool for each request.
#[derive(Clone)]
pub(crate) struct Checkout(pub(crate) deadpool_redis::Pool, pub(crate) TwoCounters);

impl Checkout {
    pub(crate) fn new(url: &str, limit: u32) -> Self {
        let config = deadpool_redis::Config::from_url(url);
        let pool = config.create_pool(Some(Runtime::Tokio1)).expect("a pool");
        Self(pool, TwoCounters::new(limit))
    }
}

impl Limiter for Checkout {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        let mut connection = self.0.get().await.expect("a connection");
        self.1.ask(&mut *connection, "ip", client).await
    }
}

/// One connection that all share, a call for each limit.
#[derive(Clone)]
pub(crate) struct Multiplexed {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) counters: TwoCounters,
    pub(crate) limiters: &'static [&'static str],
}

impl Multiplexed {
    pub(crate) async fn new(client: &redis::Client, limit: u32) -> Self {
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        Self { connection, counters: TwoCounters::new(limit), limiters: &["ip"] }
    }
}

impl Limiter for Multiplexed {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        let mut connection = self.connection.clone();
        for limiter in self.limiters {
            if !self.counters.ask(&mut connection, limiter, client).await {
                return false;
            }
        }
        true
    }
}

/// The same by a connection that finds its way back.
#[derive(Clone)]
pub(crate) struct Managed(pub(crate) ConnectionManager, pub(crate) TwoCounters);

impl Limiter for Managed {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        self.1.ask(&mut self.0.clone(), "ip", client).await
    }
}

/// Our own script, in a call for each request: what batches and encoding are worth.
#[derive(Clone)]
pub(crate) struct OurScript {
    connection: MultiplexedConnection,
    script: Arc<Script>,
    limit: u32,
}

impl OurScript {
    pub(crate) async fn new(client: &redis::Client, limit: u32) -> Self {
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let script = Script::new(include_str!("../../src/store/redis/window.lua"));
        Self { connection, script: Arc::new(script), limit }
    }
}

impl Limiter for OurScript {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        let mut call = self.script.key(format!("rl:ip:{client}"));
        // As the head of the script says: one quota, and one row of it.
        let quota = [&self.limit.to_le_bytes()[..], &60_000_000_u64.to_le_bytes(), b"\x0560000"];
        let numbers = [1_u32, 1, 1, 1, 1].map(u32::to_le_bytes).concat();
        call.arg("").arg(64).arg(quota.concat()).arg([&numbers[..], &[0; 9]].concat());
        let reply: Vec<u8> =
            call.invoke_async(&mut self.connection.clone()).await.expect("a decision");
        reply[16] >= 2
    }
}

/// trypema's provider for Redis, that counts in buckets of 10 ms.
#[derive(Clone)]
pub(crate) struct Trypema(Arc<RedisRateLimiterProvider>, RateLimit);

impl Trypema {
    pub(crate) async fn new(client: &redis::Client, limit: u32) -> Self {
        let manager = client.get_connection_manager().await.expect("a connection");
        let provider = RedisRateLimiterProvider::builder(manager)
            .window_size(WindowSize::minutes_or_panic(1))
            .bucket_size(BucketSize::milliseconds_or_panic(10))
            .cleanup_interval(Duration::from_secs(30))
            .build()
            .expect("a provider");
        Self(provider, RateLimit::per_minute(f64::from(limit)).expect("a limit"))
    }
}

impl Trypema {
    pub(crate) async fn works(&self) -> Result<(), trypema::TrypemaError> {
        let key = RedisKey::new("probe".to_owned())?;
        self.0.absolute().inc(&key, &self.1, 1).await.map(drop)
    }
}

impl Limiter for Trypema {
    async fn admits(&self, client: Ipv4Addr) -> bool {
        let key = RedisKey::new(client.to_string()).expect("a key");
        let decision = self.0.absolute().inc(&key, &self.1, 1).await.expect("a decision");
        matches!(decision, RateLimitDecision::Allowed)
    }
}
