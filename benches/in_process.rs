//! What needs no server: decisions in this process, and the layer around a service, each beside
//! governor and tower_governor.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use portcullis::{
    Answer, ClientIp, Quota,
    limit::{Key, RateLimitStore, Take},
    store::memory::MemoryRateLimitStore,
};

/// One limiter, as a bench sees it: is there room for this client?
trait Limiter: Send + Sync + 'static {
    fn admits(&self, client: IpAddr) -> bool;
}

struct Portcullis(MemoryRateLimitStore, Quota);

impl Limiter for Portcullis {
    fn admits(&self, client: IpAddr) -> bool {
        let key = Key::from(ClientIp::from(client));
        let take = Take { limiter: "ip", key, quota: self.1, cost: 1, hold: false };
        match self.0.take(std::slice::from_ref(&take)) {
            Answer::Ready(Ok(taken)) => taken[0].decision.allowed,
            _ => false,
        }
    }
}

struct Governor(DefaultKeyedRateLimiter<IpAddr>);

impl Limiter for Governor {
    fn admits(&self, client: IpAddr) -> bool {
        self.0.check_key(&client).is_ok()
    }
}

fn limiters(limit: u32) -> [(&'static str, Arc<dyn Limiter>); 2] {
    let quota = governor::Quota::per_minute(NonZeroU32::new(limit).expect("a limit"));
    [
        (
            "portcullis",
            Arc::new(Portcullis(MemoryRateLimitStore::new(), Quota::per_minute(limit))),
        ),
        ("governor", Arc::new(Governor(RateLimiter::keyed(quota)))),
    ]
}

/// Clients by Zipf's law: the second half as busy as the first, and so on.
fn clients(how_many: usize) -> Arc<[IpAddr]> {
    let weights: Vec<f64> = (1..=how_many).map(|rank| 1.0 / rank as f64).collect();
    let mut sums = Vec::with_capacity(how_many);
    let total = weights.iter().fold(0.0, |sum, weight| {
        sums.push(sum + weight);
        sum + weight
    });
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / u64::MAX as f64
    };
    let clients = (0..1 << 20).map(|_| {
        let at = random() * total;
        let rank = sums.partition_point(|sum| *sum < at) as u32;
        // Neighbours in rank are none in memory.
        IpAddr::from(Ipv4Addr::from(rank.wrapping_mul(2_654_435_761)))
    });
    clients.collect()
}

/// Time for `iterations` decisions on each of so many threads.
fn run(limiter: &Arc<dyn Limiter>, clients: &Arc<[IpAddr]>, threads: usize, n: u64) -> Duration {
    let work = |thread: usize| {
        let (limiter, clients) = (Arc::clone(limiter), Arc::clone(clients));
        move || {
            let start = thread * clients.len() / 2;
            let mut at = start;
            for _ in 0..n {
                black_box(limiter.admits(clients[at & (clients.len() - 1)]));
                at += 1;
            }
        }
    };
    let begun = Instant::now();
    let others: Vec<_> = (1..threads).map(|t| thread::spawn(work(t))).collect();
    work(0)();
    for other in others {
        other.join().expect("a thread");
    }
    begun.elapsed()
}

fn decisions(c: &mut Criterion) {
    for (name, keys, limit) in
        [("10k keys", 10_000, 1_000_000), ("1M keys", 1_000_000, 1_000_000)]
    {
        let clients = clients(keys);
        let mut group = c.benchmark_group(name);
        for threads in [1, 2] {
            for (who, limiter) in limiters(limit) {
                run(&limiter, &clients, 1, 1 << 20);
                group.bench_function(BenchmarkId::new(who, threads), |b| {
                    b.iter_custom(|n| run(&limiter, &clients, threads, n));
                });
            }
        }
    }
}

fn refusals(c: &mut Criterion) {
    let hot: Arc<[IpAddr]> = vec![IpAddr::from([203, 0, 113, 9]); 2].into();
    let mut group = c.benchmark_group("hot key, refused");
    for (who, limiter) in limiters(100) {
        run(&limiter, &hot, 1, 1000);
        group.bench_function(BenchmarkId::new(who, 2), |b| {
            b.iter_custom(|n| run(&limiter, &hot, 2, n));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = decisions, refusals
}
criterion_main!(benches);
