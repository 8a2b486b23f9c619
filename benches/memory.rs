//! Bytes that a client takes: a million IPv4 clients that hold 1 to 17 requests, each at an
//! instant of its own. By what the process grows, so each limiter has a process of its own.
//!
//!     cargo run --release --bin memory

#[path = "support/figures.rs"]
mod figures;
mod support;

use std::{
    collections::VecDeque,
    env, fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use dashmap::DashMap;
use governor::clock::Clock;
#[cfg(feature = "tower-rate-limiter")]
use support::TowerRateLimiter;
use support::{Governor, Limiter, Ticks, TowerWarden, Trypema, TwoCounters, client};

const CLIENTS: usize = 1_000_000;
const REQUESTS: [usize; 5] = [1, 2, 5, 8, 17];
const LIMIT: u32 = 100;

/// Every instant of the last minute, as one first thinks of it.
struct NaiveLog {
    logs: DashMap<IpAddr, Mutex<VecDeque<u64>>>,
    clock: Ticks,
}

impl Limiter for NaiveLog {
    type Key = IpAddr;

    fn key(client: Ipv4Addr) -> IpAddr {
        client.into()
    }

    fn admits(&self, client: &IpAddr) -> bool {
        let now = Clock::now(&self.clock).as_u64();
        let log = self.logs.entry(*client).or_default();
        let mut log = log.lock().expect("no panic");
        while log.front().is_some_and(|at| at + 60_000_000_000 <= now) {
            log.pop_front();
        }
        let admitted = log.len() < LIMIT as usize;
        if admitted {
            log.push_back(now);
        }
        admitted
    }
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kilobytes = line.trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

fn bytes_a_client<L: Limiter>(requests: usize, limiter: impl FnOnce(Ticks) -> L) -> usize {
    let clock = Ticks::default();
    let before = resident();
    let limiter = limiter(clock.clone());
    for _ in 0..requests {
        // Those on the machine's clock are as far apart as a million requests take.
        clock.advance(Duration::from_secs(2));
        for number in 0..CLIENTS {
            assert!(limiter.admits(&L::key(client(number))));
        }
    }
    let bytes = (resident() - before) / CLIENTS;
    // The process ends here: to free a million clients one by one would only take time.
    std::mem::forget(limiter);
    bytes
}

/// Bytes a client takes that holds so many requests.
type Measure = fn(usize) -> usize;

const LIMITERS: &[(&str, Measure)] = &[
    ("tower-warden", |requests| {
        bytes_a_client(requests, |clock| TowerWarden::new(LIMIT, CLIENTS).with_clock(&clock))
    }),
    ("governor", |requests| bytes_a_client(requests, |clock| Governor::new(LIMIT, clock))),
    ("two counters", |requests| bytes_a_client(requests, |clock| TwoCounters::new(LIMIT, clock))),
    ("naive log", |requests| {
        bytes_a_client(requests, |clock| NaiveLog { logs: DashMap::new(), clock })
    }),
    ("trypema", |requests| bytes_a_client(requests, |_| Trypema::new(LIMIT))),
    #[cfg(feature = "tower-rate-limiter")]
    ("tower-rate-limiter", |requests| bytes_a_client(requests, |_| TowerRateLimiter::new(LIMIT))),
];

fn measured_apart(name: &str, requests: usize) -> usize {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program).args([name, &requests.to_string()]).output();
    let output = output.expect("a process");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a number");
    text.trim().parse().expect("a number")
}

fn main() {
    if let [_, name, requests] = env::args().collect::<Vec<_>>().as_slice() {
        let (_, measure) = LIMITERS.iter().find(|(known, _)| known == name).expect("a limiter");
        println!("{}", measure(requests.parse().expect("a number")));
        return;
    }
    println!("bytes a client, of {CLIENTS}, that holds so many requests:");
    let line = |name: &str, numbers: [usize; REQUESTS.len()]| {
        println!("{name:>20}{}", numbers.map(|number| format!(" {number:>6}")).concat());
    };
    line("", REQUESTS);
    let mut table = serde_json::Map::new();
    for (name, _) in LIMITERS {
        let bytes = REQUESTS.map(|requests| measured_apart(name, requests));
        line(name, bytes);
        table.insert((*name).to_owned(), bytes.to_vec().into());
    }
    figures::write("memory", table.into());
}
