//! What needs a Redis server, at `REDIS_URL`, which is emptied: decisions a second where many wait,
//! time of one where nobody else does, several limits at once, refusals, and what it costs where
//! limits, clients and uptime grow. Each rival in the same rounds, one after the other; medians.
//!
//! ```sh
//! cargo bench --bench redis                    # all
//! cargo bench --bench redis -- waiting alone   # some
//! ```

#[path = "redis/leases.rs"]
mod leases;
#[path = "redis/limiters.rs"]
mod limiters;
#[path = "redis/measure.rs"]
mod measure;

use std::{
    net::Ipv4Addr,
    pin::Pin,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use leases::HotRound;
use limiters::{
    Checkout, Limiter, Managed, Multiplexed, OurScript, TowerWarden, Trypema, TwoCounters,
};
use measure::{Round, Server, even, load, median, one_by_one, zipf};
use serde_json::{Value, json};
use tower_warden::{Answer, Quota, limit::RateLimitStore};

const WORKERS: usize = 2;
const WAITING: usize = 256;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
/// Nobody is refused.
const HIGH: u32 = 100_000_000;

fn main() {
    let Ok(url) = std::env::var("REDIS_URL") else {
        eprintln!("REDIS_URL is not set: `benches/run redis` starts a server and sets it");
        std::process::exit(2);
    };
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime");
    let client = redis::Client::open(url.as_str()).expect("a URL");
    let mut bench = Bench { server: Server::new(&client), client, url, results: Vec::new() };
    println!("Redis {}, {WORKERS} worker threads", bench.server.version());
    runtime.block_on(async {
        if wants("waiting") {
            bench.waiting().await;
        }
        if wants("reach") {
            bench.reach();
        }
        if wants("alone") {
            bench.alone().await;
        }
        if wants("limits") {
            bench.several_limits().await;
        }
        if wants("refused") {
            bench.refused().await;
        }
        if wants("leases") {
            bench.leases().await;
        }
        if wants("sizes") {
            bench.sizes().await;
        }
    });
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/target/redis.json");
    std::fs::write(file, format!("{:#}\n", Value::from(bench.results))).expect("to write results");
    println!("written to {file}");
}

struct Bench {
    server: Server,
    client: redis::Client,
    url: String,
    /// For plots.
    results: Vec<Value>,
}

impl Bench {
    /// Decisions a second, with many waiting.
    async fn waiting(&mut self) {
        for (which, clients) in
            [("10,000 by Zipf", zipf(10_000)), ("256, each its own", even(WAITING))]
        {
            println!("\n{WAITING} waiting, clients: {which}");
            let rivals = self.rivals().await;
            let rounds = self.alternate(&rivals, &clients, WAITING).await;
            self.tell("waiting", which, &rivals, &rounds);
        }
        let (which, clients) = ("1,000,000 in turn", even(1_000_000));
        println!("\n{WAITING} waiting, clients: {which}");
        self.server.empty();
        let rivals = self.rivals().await;
        let rounds = self.alternate(&rivals[..3], &clients, WAITING).await;
        self.tell("waiting", which, &rivals[..3], &rounds);
        self.server.empty();
    }

    async fn rivals(&self) -> Vec<(&'static str, Box<dyn Load>)> {
        let counters = TwoCounters::new(HIGH);
        let manager = self.client.get_connection_manager().await.expect("a connection");
        let mut all: Vec<(_, Box<dyn Load>)> = vec![
            ("tower-warden", Box::new(TowerWarden::new(&self.url, HIGH))),
            ("deadpool-redis, a checkout each", Box::new(Checkout::new(&self.url, HIGH))),
            ("MultiplexedConnection", Box::new(Multiplexed::new(&self.client, HIGH).await)),
            ("ConnectionManager", Box::new(Managed(manager, counters))),
            ("our script, a call each", Box::new(OurScript::new(&self.client, HIGH).await)),
        ];
        // It says what it needs; older servers don't have it.
        let trypema = Trypema::new(&self.client, HIGH).await;
        match trypema.works().await {
            Ok(()) => all.push(("trypema", Box::new(trypema))),
            Err(error) => println!("trypema is left out: {error}"),
        }
        all
    }

    /// What redis-benchmark gets out of the server by the script of two counters.
    fn reach(&mut self) {
        self.server.empty();
        let sha = redis::Script::new(TwoCounters::CODE);
        let port = self.url.rsplit(':').next().unwrap_or("6379").trim_end_matches('/').to_owned();
        self.server.load(TwoCounters::CODE);
        println!("\nredis-benchmark, 50 connections, two counters, 10,000 clients");
        for pipelined in ["1", "16"] {
            let run = Command::new("redis-benchmark")
                .args(["-p", &port, "-c", "50", "-r", "10000", "-n", "300000", "--csv"])
                .args(["-P", pipelined, "EVALSHA", sha.get_hash(), "1"])
                .args(["rl:ip:__rand_int__", "60000", &HIGH.to_string()])
                .output();
            let Ok(output) = run else { return println!("redis-benchmark is not installed") };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let rate = text.lines().last().and_then(|line| line.split(',').nth(1));
            let rate = rate.and_then(|rate| rate.trim_matches('"').parse::<f64>().ok());
            println!("  -P {pipelined:<38}{:>9.0} /s", rate.unwrap_or(f64::NAN));
            self.results
                .push(json!({ "bench": "reach", "pipelined": pipelined, "per_second": rate }));
        }
    }

    /// How long a decision takes where nobody else waits.
    async fn alone(&mut self) {
        println!("\nnobody else waits");
        self.server.empty();
        let clients = even(1_000);
        let ours = TowerWarden::new(&self.url, HIGH);
        let bare = OurScript::new(&self.client, HIGH).await;
        let counters = Multiplexed::new(&self.client, HIGH).await;
        let checkout = Checkout::new(&self.url, HIGH);
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            times[0].push(one_by_one(&ours, &clients, 5_000).await);
            times[1].push(one_by_one(&bare, &clients, 5_000).await);
            times[2].push(one_by_one(&counters, &clients, 5_000).await);
            times[3].push(one_by_one(&checkout, &clients, 5_000).await);
        }
        let names =
            ["tower-warden", "our script, bare", "two counters, bare", "deadpool, two counters"];
        self.tell_times("alone", &names, times);
    }

    /// A request under three limits beside one under one.
    async fn several_limits(&mut self) {
        const THREE: &[&str] = &["ip", "user", "route"];
        self.server.empty();
        let clients = even(1_000);
        let one = TowerWarden::new(&self.url, HIGH);
        let three = TowerWarden { limiters: THREE, ..TowerWarden::new(&self.url, HIGH) };
        let rival = Multiplexed::new(&self.client, HIGH).await;
        let rivals = Multiplexed { limiters: THREE, ..rival.clone() };
        println!("\none limit and three, nobody else waits");
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            times[0].push(one_by_one(&one, &clients, 5_000).await);
            times[1].push(one_by_one(&three, &clients, 5_000).await);
            times[2].push(one_by_one(&rival, &clients, 5_000).await);
            times[3].push(one_by_one(&rivals, &clients, 5_000).await);
        }
        let names =
            ["tower-warden, one", "tower-warden, three", "a call each, one", "a call each, three"];
        self.tell_times("limits", &names, times);
        let loads: [(_, Box<dyn Load>); 4] = [
            (names[0], Box::new(one)),
            (names[1], Box::new(three)),
            (names[2], Box::new(rival)),
            (names[3], Box::new(rivals)),
        ];
        for (which, waiting) in [("64 waiting", 64), ("256 waiting", WAITING)] {
            println!("\none limit and three, {which}");
            let rounds = self.alternate(&loads, &clients, waiting).await;
            self.tell("limits", which, &loads, &rounds);
        }
    }

    /// Who is refused already.
    async fn refused(&mut self) {
        const TIMES: u32 = 1_000_000;
        self.server.empty();
        let ours = TowerWarden::new(&self.url, 5);
        let client = Ipv4Addr::new(203, 0, 113, 9);
        while ours.admits(client).await {}
        let take: Vec<_> = ours.takes(client).collect();
        let mut times = Vec::new();
        let before = self.server.commands();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for _ in 0..TIMES {
                let Answer::Ready(Ok(taken)) = ours.store.take(&take) else { panic!("a call") };
                assert!(!taken[0].decision.is_allowed());
            }
            times.push(begun.elapsed() / TIMES);
        }
        // The question itself is one.
        let commands = self.server.commands() - before - 1;
        println!(
            "\na client that is refused already: {:?} a decision, {commands} commands at Redis for {} decisions",
            median(times.clone()),
            TIMES as usize * ROUNDS,
        );
        self.results.push(json!({
            "bench": "refused", "nanoseconds": median(times).as_nanos() as u64, "commands": commands,
        }));
    }

    /// One hot key, asked for by several servers.
    async fn leases(&mut self) {
        println!("\n{WAITING} waiting on one key, over servers that share nothing but Redis");
        for servers in [1, 4, 16] {
            let each = || TowerWarden::new(&self.url, HIGH);
            let asking: Vec<_> = (0..servers).map(|_| each()).collect();
            let leasing = asking.iter().map(|_| {
                let server = each();
                TowerWarden { store: server.store.with_leases(), ..server }
            });
            let contestants =
                [("asking each time", asking.clone()), ("with leases", leasing.collect())];
            let mut rounds = [const { Vec::new() }; 2];
            for round in 0..=ROUNDS {
                for ((_, all), rounds) in contestants.iter().zip(&mut rounds) {
                    let result = leases::hot(all, WAITING, ROUND, &mut self.server).await;
                    // The first is to warm up.
                    if round > 0 {
                        rounds.push(result);
                    }
                }
            }
            for ((name, _), rounds) in contestants.iter().zip(rounds) {
                let of = |field: fn(&HotRound) -> f64| median(rounds.iter().map(field).collect());
                let rate = of(|round| round.per_second);
                let commands = of(|round| round.commands);
                let micros = of(|round| round.p99.as_secs_f64() * 1e6);
                println!(
                    "  {servers:>2} servers, {name:<28}{rate:>9.0} /s {commands:>8.2} commands a thousand, p99 {micros:>7.0} µs"
                );
                let clients =
                    if servers == 1 { "1 server".to_owned() } else { format!("{servers} servers") };
                for (bench, unit, figure) in [
                    ("leases", "per_second", rate),
                    ("leases: commands", "commands", commands),
                    ("leases: p99", "microseconds", micros),
                ] {
                    self.results.push(
                        json!({ "bench": bench, "clients": clients, "who": name, unit: figure }),
                    );
                }
            }
        }
    }

    /// What grows must not cost.
    async fn sizes(&mut self) {
        println!(
            "\n{WAITING} waiting, by the limit; windows of 100 ms that pass meanwhile, refusals not remembered"
        );
        for limit in [5, 50, 500, 5_000, 50_000, 1_000_000] {
            self.server.empty();
            let ours = self.rolling(limit, Duration::from_millis(100));
            let round = load(&ours, &even(WAITING), WAITING, 2 * ROUND, &mut self.server).await;
            self.tell_size("limit", limit.into(), round);
        }
        println!("\n{WAITING} waiting, by uptime: a limit of 500 in 100 ms, one second each");
        self.server.empty();
        let ours = self.rolling(500, Duration::from_millis(100));
        for second in 1..=10 {
            let round = load(&ours, &even(WAITING), WAITING, ROUND, &mut self.server).await;
            self.tell_size("seconds", second, round);
        }
        println!("\n{WAITING} waiting, by the number of clients");
        for keys in [1, 100, 10_000, 1_000_000] {
            self.server.empty();
            let (ours, clients) = (TowerWarden::new(&self.url, HIGH), even(keys));
            // Until all are there: each load begins with the first.
            let mut time = ROUND;
            while self.server.keys() < keys as u64 {
                load(&ours, &clients, WAITING, time, &mut self.server).await;
                time *= 2;
            }
            let round = load(&ours, &clients, WAITING, 2 * ROUND, &mut self.server).await;
            self.tell_size("clients", keys as u64, round);
        }
    }

    fn rolling(&self, limit: u32, window: Duration) -> TowerWarden {
        let ours = TowerWarden::new(&self.url, limit);
        let quota = Quota::new(limit, window).expect("a quota");
        TowerWarden { quota, store: ours.store.with_remembered_refusals(0), ..ours }
    }

    /// Rounds of all, one after the other, so that what disturbs one disturbs all.
    async fn alternate(
        &mut self,
        loads: &[(&'static str, Box<dyn Load>)],
        clients: &Arc<[Ipv4Addr]>,
        waiting: usize,
    ) -> Vec<Vec<Round>> {
        let mut rounds = vec![Vec::new(); loads.len()];
        for round in 0..=ROUNDS {
            for ((_, limiter), rounds) in loads.iter().zip(&mut rounds) {
                let time = if round == 0 { ROUND / 3 } else { ROUND };
                let result = limiter.load(clients, waiting, time, &mut self.server).await;
                // The first is to warm up.
                if round > 0 {
                    rounds.push(result);
                }
            }
        }
        rounds
    }

    fn tell(
        &mut self,
        bench: &str,
        which: &str,
        loads: &[(&'static str, Box<dyn Load>)],
        rounds: &[Vec<Round>],
    ) {
        let names: Vec<_> = loads.iter().map(|(name, _)| *name).collect();
        let rates: Vec<Vec<f64>> =
            rounds.iter().map(|all| all.iter().map(|round| round.per_second).collect()).collect();
        for ((name, rounds), rates_of) in names.iter().zip(rounds).zip(&rates) {
            let (rate, ratios) = (median(rates_of.clone()), ratios(&names, &rates, rates_of));
            let cpu = rounds.iter().filter_map(|round| round.cpu);
            let (here, there): (Vec<_>, Vec<_>) = cpu.unzip();
            let cpu = match here.is_empty() {
                true => String::new(),
                false => {
                    let (here, there) = (median(here), median(there));
                    self.results.push(json!({
                        "bench": format!("{bench}: in Redis"), "clients": which, "who": name,
                        "nanoseconds": there.as_nanos() as u64,
                    }));
                    format!("{here:>9.2?} here {there:>9.2?} in Redis")
                }
            };
            let ours = 1.0 / ratios[names[0]].as_f64().unwrap_or(1.0);
            println!("  {name:<40}{rate:>9.0} /s  ours {ours:>5.2} times{cpu}");
            self.results.push(json!({
                "bench": bench, "clients": which, "who": name, "per_second": rate, "ratios": ratios,
            }));
        }
    }

    fn tell_times<const N: usize>(
        &mut self,
        bench: &str,
        names: &[&str; N],
        times: [Vec<Duration>; N],
    ) {
        let times = times.map(|all| all.iter().map(|time| time.as_secs_f64() * 1e6).collect());
        let times: [Vec<f64>; N] = times;
        for (name, of) in names.iter().zip(&times) {
            let (micros, ratios) = (median(of.clone()), ratios(names, &times, of));
            let ours = 1.0 / ratios[names[0]].as_f64().unwrap_or(1.0);
            println!("  {name:<40}{micros:>9.1} µs  ours {ours:>5.2} times");
            self.results.push(
                json!({ "bench": bench, "who": name, "microseconds": micros, "ratios": ratios }),
            );
        }
    }

    fn tell_size(&mut self, of: &str, size: u64, round: Round) {
        let there = round.cpu.map(|(_, there)| format!("{there:.2?} in Redis")).unwrap_or_default();
        println!("  {size:>10} {:>9.0} /s  {there}", round.per_second);
        self.results.push(
            json!({ "bench": "size", "of": of, "size": size, "per_second": round.per_second }),
        );
    }
}

/// These figures beside those of each contestant: the median of the rounds' ratios.
fn ratios(names: &[&str], all: &[Vec<f64>], figures: &[f64]) -> Value {
    let to = |others: &Vec<f64>| median(figures.iter().zip(others).map(|(a, b)| a / b).collect());
    names.iter().zip(all).map(|(name, others)| ((*name).to_owned(), json!(to(others)))).collect()
}

/// A [`Limiter`] of any kind.
trait Load {
    fn load<'a>(
        &'a self,
        clients: &'a Arc<[Ipv4Addr]>,
        waiting: usize,
        time: Duration,
        server: &'a mut Server,
    ) -> Pin<Box<dyn Future<Output = Round> + 'a>>;
}

impl<L: Limiter> Load for L {
    fn load<'a>(
        &'a self,
        clients: &'a Arc<[Ipv4Addr]>,
        waiting: usize,
        time: Duration,
        server: &'a mut Server,
    ) -> Pin<Box<dyn Future<Output = Round> + 'a>> {
        Box::pin(load(self, clients, waiting, time, server))
    }
}
