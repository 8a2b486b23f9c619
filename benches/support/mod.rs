//! The limiters that are compared, each behind the same question, and a clock that a bench moves.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState;
use governor::{
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::keyed::DashMapStateStore,
};
use hashbrown::HashTable;
use tower_warden::{
    ClientIp, Quota,
    limit::{LimiterName, RateLimitStore, store::Take},
    store::memory::MemoryRateLimitStore,
};
use trypema::{
    RateLimit, RateLimitDecision, RateLimiterBuilder,
    local::{AbsoluteLocalRateLimiter, LocalRateLimiterProvider},
};

const MINUTE: Duration = Duration::from_secs(60);

/// One limiter of so many a minute: is there room for this client?
pub trait Limiter: Sync {
    /// A client as this limiter wants it named; not built within what is measured.
    type Key: Send + Sync;

    fn key(client: Ipv4Addr) -> Self::Key;
    fn admits(&self, client: &Self::Key) -> bool;
}

/// Ours. `capacity` is the number of clients it will see.
pub struct TowerWarden {
    store: MemoryRateLimitStore,
    name: LimiterName,
    quota: Quota,
}

impl TowerWarden {
    pub fn new(limit: u32, capacity: usize) -> Self {
        // Shards fill unevenly.
        let capacity = capacity + capacity / 4 + 10_000;
        let store = MemoryRateLimitStore::new().with_capacity(capacity);
        let name = LimiterName::new("ip").expect("a name");
        Self { store, name, quota: Quota::per_minute(limit) }
    }

    pub fn with_clock(self, clock: &Ticks) -> Self {
        Self { store: self.store.with_clock(Arc::new(clock.clone())), ..self }
    }
}

impl Limiter for TowerWarden {
    type Key = ClientIp;

    fn key(client: Ipv4Addr) -> ClientIp {
        ClientIp::from(IpAddr::V4(client))
    }

    fn admits(&self, client: &ClientIp) -> bool {
        let take = Take::new(self.name, *client, self.quota);
        let taken = self.store.take_now(&take).and_then(Result::ok);
        taken.is_some_and(|taken| taken.decision.is_allowed())
    }
}

/// governor, keyed, in the map that it takes unless told otherwise.
pub struct Governor<C: Clock>(
    governor::RateLimiter<IpAddr, DashMapStateStore<IpAddr>, C, NoOpMiddleware<C::Instant>>,
);

impl<C: Clock> Governor<C> {
    pub fn new(limit: u32, clock: C) -> Self {
        let limit = NonZeroU32::new(limit).expect("a limit");
        let quota = governor::Quota::per_minute(limit);
        Self(governor::RateLimiter::dashmap_with_clock(quota, clock))
    }
}

impl<C: Clock + Sync> Limiter for Governor<C> {
    type Key = IpAddr;

    fn key(client: Ipv4Addr) -> IpAddr {
        client.into()
    }

    fn admits(&self, client: &IpAddr) -> bool {
        self.0.check_key(client).is_ok()
    }
}

/// The count of this window and a part of the last one's, as Cloudflare, Upstash and Kong count: a
/// hash table in sharded locks, as fast as we could write it.
pub struct TwoCounters<C: Clock> {
    shards: Vec<Shard>,
    hasher: RandomState,
    limit: f64,
    clock: C,
    start: C::Instant,
}

/// A cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<HashTable<Counters>>);

struct Counters {
    client: IpAddr,
    window: u32,
    count: u32,
    before: u32,
}

impl<C: Clock> TwoCounters<C> {
    pub fn new(limit: u32, clock: C) -> Self {
        Self {
            shards: (0..64).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            limit: limit.into(),
            start: clock.now(),
            clock,
        }
    }
}

impl<C: Clock + Sync> Limiter for TwoCounters<C> {
    type Key = IpAddr;

    fn key(client: Ipv4Addr) -> IpAddr {
        client.into()
    }

    fn admits(&self, client: &IpAddr) -> bool {
        const WINDOW: u64 = MINUTE.as_nanos() as u64;
        let hash = self.hasher.hash_one(client);
        let mut shard = self.shards[hash as usize % 64].0.lock().expect("no panic");
        let now = self.clock.now().duration_since(self.start).as_u64();
        let (window, part) = ((now / WINDOW) as u32, (now % WINDOW) as f64 / WINDOW as f64);
        // The lower bits chose the shard.
        let hash = hash.rotate_right(6);
        let rehash = |counters: &Counters| self.hasher.hash_one(counters.client).rotate_right(6);
        let counters = shard
            .entry(hash, |counters| counters.client == *client, rehash)
            .or_insert_with(|| Counters { client: *client, window, count: 0, before: 0 })
            .into_mut();
        if counters.window != window {
            let follows = counters.window + 1 == window;
            counters.before = if follows { counters.count } else { 0 };
            (counters.window, counters.count) = (window, 0);
        }
        let used = f64::from(counters.before) * (1.0 - part) + f64::from(counters.count);
        let admitted = used < self.limit;
        counters.count += u32::from(admitted);
        admitted
    }
}

/// trypema's limiter in this process: buckets of 100 ms. Its keys are text.
pub struct Trypema {
    provider: Arc<LocalRateLimiterProvider>,
    rate: RateLimit,
}

impl Trypema {
    pub fn new(limit: u32) -> Self {
        Self {
            provider: LocalRateLimiterProvider::builder().build().expect("a provider"),
            rate: RateLimit::per_minute(limit.into()).expect("a rate"),
        }
    }

    fn limiter(&self) -> &AbsoluteLocalRateLimiter {
        self.provider.absolute()
    }
}

impl Limiter for Trypema {
    type Key = Box<str>;

    fn key(client: Ipv4Addr) -> Box<str> {
        client.to_string().into()
    }

    fn admits(&self, client: &Box<str>) -> bool {
        matches!(self.limiter().inc(client, &self.rate, 1), RateLimitDecision::Allowed)
    }
}

/// The store of tower-rate-limiter: a fixed window in a moka cache. Its keys are text.
#[cfg(feature = "tower-rate-limiter")]
pub struct TowerRateLimiter {
    store: tower_rate_limiter::MemoryStore,
    limit: u64,
}

#[cfg(feature = "tower-rate-limiter")]
impl TowerRateLimiter {
    pub fn new(limit: u32) -> Self {
        Self { store: tower_rate_limiter::MemoryStore::new(), limit: limit.into() }
    }
}

#[cfg(feature = "tower-rate-limiter")]
impl Limiter for TowerRateLimiter {
    type Key = Box<str>;

    fn key(client: Ipv4Addr) -> Box<str> {
        client.to_string().into()
    }

    fn admits(&self, client: &Box<str>) -> bool {
        use tower_rate_limiter::Store;
        let answer = self.store.increment(client, MINUTE).into_inner();
        answer.is_ok_and(|usage| usage.used <= self.limit)
    }
}

/// A clock that a bench moves, at the cost of an atomic read: ours and governor's.
#[derive(Clone, Debug, Default)]
pub struct Ticks(Arc<AtomicU64>);

impl Ticks {
    pub fn advance(&self, by: Duration) {
        // One thread moves it.
        let now = self.0.load(Ordering::Relaxed) + by.as_nanos() as u64;
        self.0.store(now, Ordering::Relaxed);
    }
}

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

impl tower_warden::Clock for Ticks {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The client of this number: neighbours in number are none in a table.
pub fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::from((number as u32).wrapping_mul(2_654_435_761))
}
