//! Decisions in this process, beside other limiters in the same run: by number of clients and
//! threads (rows 1 and 2), refused (row 3), and whether cost grows with keys, limit or uptime.
//!
//!     cargo bench --bench decisions

mod support;

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use governor::clock::DefaultClock;
#[cfg(feature = "tower-rate-limiter")]
use support::TowerRateLimiter;
use support::{Governor, Limiter, TowerWarden, Ticks, Trypema, TwoCounters, client};

/// A limit that is not reached.
const ENDLESS: u32 = 1_000_000_000;

/// What a bench asks of a limiter.
struct Load {
    /// How many clients have been seen before anything is measured.
    clients: usize,
    /// Whose requests come, in turn: a power of two of them.
    sequence: Vec<u32>,
}

impl Load {
    /// The second client is half as busy as the first, the third a third, and so on.
    fn zipf(clients: usize) -> Self {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=clients)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = state as f64 / u64::MAX as f64 * sum;
            sums.partition_point(|sum| *sum < at).min(clients - 1) as u32
        };
        Self { clients, sequence: (0..1 << 21).map(|_| draw()).collect() }
    }

    /// One client.
    fn one() -> Self {
        Self { clients: 1, sequence: vec![0; 2] }
    }
}

/// In cache lines of its own, as what is shared in a server is: on the stack of the first thread, what
/// that writes there would slow the others down.
#[repr(align(128))]
struct Apart<T>(T);

/// A limiter under a load, every client of which it knows.
struct Race<L: Limiter> {
    limiter: Box<Apart<L>>,
    keys: Vec<L::Key>,
}

impl<L: Limiter> Race<L> {
    fn new(limiter: L, load: &Load) -> Self {
        for number in 0..load.clients {
            assert!(limiter.admits(&L::key(client(number))), "the first request is admitted");
        }
        let keys = load.sequence.iter().map(|number| L::key(client(*number as usize))).collect();
        Self { limiter: Box::new(Apart(limiter)), keys }
    }

    /// Time for so many decisions on each of these threads.
    fn run(&self, threads: usize, decisions: u64) -> Duration {
        let ready = Barrier::new(threads);
        let work = |thread: usize| {
            let from = thread * self.keys.len() / 2;
            ready.wait();
            let begun = Instant::now();
            for at in from..from + decisions as usize {
                black_box(self.limiter.0.admits(&self.keys[at & (self.keys.len() - 1)]));
            }
            begun.elapsed()
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || work(t))).collect();
            let own = work(0);
            others.into_iter().map(|other| other.join().expect("a thread")).fold(own, Duration::max)
        })
    }
}

fn race<L: Limiter>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    limiter: L,
    load: &Load,
    threads: &[usize],
) {
    let race = Race::new(limiter, load);
    for &threads in threads {
        group.bench_function(BenchmarkId::new(name, threads), |b| {
            b.iter_custom(|decisions| race.run(threads, decisions));
        });
    }
}

fn all(group: &mut BenchmarkGroup<'_, WallTime>, load: &Load, limit: u32) {
    let threads = &[1, 2];
    race(group, "tower-warden", TowerWarden::new(limit, load.clients), load, threads);
    race(group, "governor", Governor::new(limit, DefaultClock::default()), load, threads);
    race(group, "two counters", TwoCounters::new(limit, DefaultClock::default()), load, threads);
    race(group, "trypema", Trypema::new(limit), load, threads);
    #[cfg(feature = "tower-rate-limiter")]
    race(group, "tower-rate-limiter", TowerRateLimiter::new(limit), load, threads);
}

fn decisions(c: &mut Criterion) {
    for (name, clients) in [("decision, 10k clients", 10_000), ("decision, 1M clients", 1_000_000)]
    {
        let load = Load::zipf(clients);
        all(&mut c.benchmark_group(name), &load, ENDLESS);
    }
}

/// One client that has used up its limit, and goes on asking.
fn refusals(c: &mut Criterion) {
    all(&mut c.benchmark_group("decision, refused"), &Load::one(), 1);
}

fn clients(c: &mut Criterion) {
    let mut group = c.benchmark_group("cost over clients");
    for clients in [1, 10, 1000, 100_000, 1_000_000, 10_000_000] {
        let load = Load::zipf(clients);
        let mut time = |name, run: &dyn Fn(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(name, clients), |b| b.iter_custom(run));
        };
        let race = Race::new(TowerWarden::new(ENDLESS, clients), &load);
        time("tower-warden", &|decisions| race.run(1, decisions));
        drop(race);
        let race = Race::new(Governor::new(ENDLESS, DefaultClock::default()), &load);
        time("governor", &|decisions| race.run(1, decisions));
    }
}

/// One client whose requests come as fast as its limit lets them, after so many windows of that:
/// each is admitted, and the window stays full.
struct Steady<L: Limiter> {
    limiter: L,
    key: L::Key,
    clock: Ticks,
    step: Duration,
}

impl<L: Limiter> Steady<L> {
    fn new(limiter: L, clock: &Ticks, limit: u32, windows: u32) -> Self {
        // A little slower than the limit, for what a bounded log rounds: a 64th of a window.
        let step = Duration::from_secs(60).mul_f64(1.04) / limit;
        let mut steady = Self { limiter, key: L::key(client(1)), clock: clock.clone(), step };
        let requests = u64::from(limit) * u64::from(windows);
        assert_eq!(steady.admitted(requests), requests, "all are admitted");
        steady
    }

    fn admitted(&mut self, requests: u64) -> u64 {
        let mut admitted = 0;
        for _ in 0..requests {
            self.clock.advance(self.step);
            admitted += u64::from(black_box(self.limiter.admits(&self.key)));
        }
        admitted
    }

    /// Time stands still, so that what comes is refused.
    fn used_up(mut self) -> Self {
        self.step = Duration::ZERO;
        while self.admitted(1) == 1 {}
        self
    }

    fn run(&mut self, decisions: u64) -> Duration {
        let begun = Instant::now();
        self.admitted(decisions);
        begun.elapsed()
    }
}

fn ours(limit: u32, windows: u32) -> Steady<TowerWarden> {
    let clock = Ticks::default();
    Steady::new(TowerWarden::new(limit, 1).with_clock(&clock), &clock, limit, windows)
}

fn governor(limit: u32, windows: u32) -> Steady<Governor<Ticks>> {
    let clock = Ticks::default();
    Steady::new(Governor::new(limit, clock.clone()), &clock, limit, windows)
}

fn steady<L: Limiter>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    mut limiter: Steady<L>,
) {
    group.bench_function(id, |b| b.iter_custom(|decisions| limiter.run(decisions)));
}

fn limits(c: &mut Criterion) {
    let limits = [5, 100, 10_000, 1_000_000];
    let mut group = c.benchmark_group("cost over limit, admitted");
    for limit in limits {
        steady(&mut group, BenchmarkId::new("tower-warden", limit), ours(limit, 2));
        steady(&mut group, BenchmarkId::new("governor", limit), governor(limit, 2));
    }
    group.finish();
    let mut group = c.benchmark_group("cost over limit, refused");
    for limit in limits {
        steady(&mut group, BenchmarkId::new("tower-warden", limit), ours(limit, 2).used_up());
        steady(&mut group, BenchmarkId::new("governor", limit), governor(limit, 2).used_up());
    }
}

fn uptime(c: &mut Criterion) {
    let mut group = c.benchmark_group("cost over uptime, in windows");
    for windows in [1, 10, 100] {
        steady(&mut group, BenchmarkId::new("tower-warden", windows), ours(10_000, windows));
        steady(&mut group, BenchmarkId::new("governor", windows), governor(10_000, windows));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decisions, refusals, clients, limits, uptime
}
criterion_main!(benches);
