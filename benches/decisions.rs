//! Decisions in this process, beside other limiters in the same run: by number of clients and threads,
//! out of reach of the limit, at one that real limits look like, and refused; and whether cost grows with
//! keys, limit or uptime.
//!
//!     cargo run --release --bin decisions
//!
//! What is compared takes turns, in many short rounds: whatever else the machine does falls on all
//! alike. What is kept is the median of each, and the median of the rounds' ratios.

#[path = "support/figures.rs"]
mod figures;
mod support;

use std::{
    env,
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use governor::clock::DefaultClock;
use serde_json::{Map, Value};
#[cfg(feature = "tower-rate-limiter")]
use support::TowerRateLimiter;
use support::{Governor, Limiter, Ticks, TowerWarden, Trypema, TwoCounters, client};

/// A limit that is not reached.
const ENDLESS: u32 = 1_000_000_000;
/// What real limits look like: who asks often is refused, who asks seldom isn't.
const REAL: u32 = 50;
const ROUND: Duration = Duration::from_millis(25);

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

/// What takes turns with others: so many decisions, in which time.
type Contestant<'a> = (&'static str, Box<dyn FnMut(u64) -> Duration + 'a>);

/// So many decisions come before what is measured, so that who asks often has reached his limit.
const BEFORE: u64 = 4_000_000;

/// Nanoseconds of a decision, for each contestant in the order given: the median of its rounds, and of
/// its ratios to the one called `against`.
fn medians(
    contestants: &mut [Contestant<'_>],
    before: u64,
    rounds: usize,
    against: &str,
) -> Vec<(f64, f64)> {
    let nanos = |time: Duration, decisions: u64| time.as_nanos() as f64 / decisions as f64;
    let decisions: Vec<u64> = contestants
        .iter_mut()
        .map(|(_, run)| {
            run(before);
            (ROUND.as_nanos() as f64 / nanos(run(20_000), 20_000)).max(1.0) as u64
        })
        .collect();
    let mut times = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let which = (turn + round) % contestants.len();
            times[which].push(nanos(contestants[which].1(decisions[which]), decisions[which]));
        }
    }
    let rival = contestants.iter().position(|(name, _)| *name == against).expect("a rival");
    let ratios = times.iter().map(|own| {
        let ratios = own.iter().zip(&times[rival]).map(|(own, rival)| own / rival);
        (median(own.clone()), median(ratios.collect()))
    });
    ratios.collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What was measured, by `group/contestant/size`, and where rounds were paired `group/ratio/size`.
struct Bench {
    /// Which groups are run: those whose name has this in it.
    filter: String,
    rounds: usize,
    figures: Map<String, Value>,
}

impl Bench {
    fn wants(&self, group: &str) -> bool {
        group.contains(&self.filter)
    }

    fn compare(
        &mut self,
        group: &str,
        size: usize,
        before: u64,
        mut contestants: Vec<Contestant<'_>>,
    ) {
        let medians = medians(&mut contestants, before, self.rounds, "governor");
        print!("{group:<28} {size:>9}");
        for ((name, _), (time, ratio)) in contestants.iter().zip(medians) {
            print!("   {name} {time:.1} ns ({ratio:.2})");
            self.figures.insert(format!("{group}/{name}/{size}"), time.into());
            if *name == "tower-warden" {
                self.figures.insert(format!("{group}/ratio/{size}"), ratio.into());
            }
        }
        println!();
    }

    /// All limiters under a load, by one thread and by two.
    fn row(&mut self, group: &str, load: &Load, limit: u32) {
        if !self.wants(group) {
            return;
        }
        let clock = DefaultClock::default;
        let ours = Race::new(TowerWarden::new(limit, load.clients), load);
        let governor = Race::new(Governor::new(limit, clock()), load);
        let counters = Race::new(TwoCounters::new(limit, clock()), load);
        let trypema = Race::new(Trypema::new(limit), load);
        #[cfg(feature = "tower-rate-limiter")]
        let fixed = Race::new(TowerRateLimiter::new(limit), load);
        for threads in [1, 2] {
            let contestants: Vec<Contestant<'_>> = vec![
                ("tower-warden", Box::new(|decisions| ours.run(threads, decisions))),
                ("governor", Box::new(|decisions| governor.run(threads, decisions))),
                ("two counters", Box::new(|decisions| counters.run(threads, decisions))),
                ("trypema", Box::new(|decisions| trypema.run(threads, decisions))),
                #[cfg(feature = "tower-rate-limiter")]
                ("tower-rate-limiter", Box::new(|decisions| fixed.run(threads, decisions))),
            ];
            // The second begins where the first ended.
            self.compare(group, threads, if threads == 1 { BEFORE } else { 20_000 }, contestants);
        }
    }

    fn rows(&mut self) {
        for (clients, name) in [(10_000, "10k clients"), (1_000_000, "1M clients")] {
            let loads = [("out of reach", ENDLESS), ("real limit", REAL), ("all refused", 1)];
            let groups = loads.map(|(load, limit)| (format!("{name}, {load}"), limit));
            if !groups.iter().any(|(group, _)| self.wants(group)) {
                continue;
            }
            let load = Load::zipf(clients);
            for (group, limit) in groups {
                self.row(&group, &load, limit);
            }
        }
        self.row("one client, refused", &Load::one(), 1);
    }

    fn over_clients(&mut self) {
        const GROUP: &str = "cost over clients";
        if !self.wants(GROUP) {
            return;
        }
        for clients in [1, 10, 1000, 100_000, 1_000_000, 10_000_000] {
            let load = Load::zipf(clients);
            let ours = Race::new(TowerWarden::new(ENDLESS, clients), &load);
            let governor = Race::new(Governor::new(ENDLESS, DefaultClock::default()), &load);
            let contestants: Vec<Contestant<'_>> = vec![
                ("tower-warden", Box::new(|decisions| ours.run(1, decisions))),
                ("governor", Box::new(|decisions| governor.run(1, decisions))),
            ];
            self.compare(GROUP, clients, 200_000, contestants);
        }
    }

    fn steady(
        &mut self,
        group: &str,
        size: u32,
        mut ours: Steady<TowerWarden>,
        mut governor: Steady<Governor<Ticks>>,
    ) {
        let contestants: Vec<Contestant<'_>> = vec![
            ("tower-warden", Box::new(|decisions| ours.run(decisions))),
            ("governor", Box::new(|decisions| governor.run(decisions))),
        ];
        self.compare(group, size as usize, 20_000, contestants);
    }

    fn over_limits(&mut self) {
        let (admitted, refused) = ("cost over limit, admitted", "cost over limit, refused");
        for limit in [5, 50, 100, 10_000, 1_000_000] {
            if self.wants(admitted) {
                self.steady(admitted, limit, ours(limit, 2), governor(limit, 2));
            }
            if self.wants(refused) {
                let (ours, governor) = (ours(limit, 2).used_up(), governor(limit, 2).used_up());
                self.steady(refused, limit, ours, governor);
            }
        }
    }

    fn over_uptime(&mut self) {
        const GROUP: &str = "cost over uptime, in windows";
        for windows in [1, 10, 100] {
            if self.wants(GROUP) {
                self.steady(GROUP, windows, ours(10_000, windows), governor(10_000, windows));
            }
        }
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

fn main() {
    let quick = env::var_os("BENCHES_QUICK").is_some();
    let filter = env::args().nth(1).unwrap_or_default();
    let rounds = if quick { 7 } else { 31 };
    let mut bench = Bench { filter, rounds, figures: Map::new() };
    bench.rows();
    bench.over_limits();
    bench.over_uptime();
    bench.over_clients();
    figures::add("decisions", bench.figures);
}
