//! Whole servers under load, each with the same route behind another door: `servers` starts them,
//! drives wrk at them in turn, and prints how many requests a second each answered.
//!
//! They take turns in rounds of a second each, there and back again, so that what else the machine does
//! falls on all alike. What is kept is the median of each one's rounds, and of two of a group the median
//! of the rounds' ratios.
//!
//! `REDIS_URL` names a Redis to count in; without it, those contestants are left out.

mod ours;
mod rivals;
mod tokens;
mod wrk;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use axum::{Router, routing::get};
use http::StatusCode;
use serde_json::json;
use tower_warden::limit::LimitHeaders;

use wrk::Measured;

/// One server: whom it is compared with, and what it answers.
struct Contestant {
    group: &'static str,
    name: &'static str,
    status: StatusCode,
}

const fn contestant(group: &'static str, name: &'static str, status: StatusCode) -> Contestant {
    Contestant { group, name, status }
}

const IN_PROCESS: &str = "in process";
/// In process, and the same token in each request: what one asks for is in the processor's caches.
const ONE_USER: &str = "one user";
const REFUSING: &str = "refusing";
const REDIS: &str = "Redis";

/// The first of each group is what the table printed compares the others with. Those that are compared in
/// the report stand beside one another, so that little happens between them.
const CONTESTANTS: [Contestant; 19] = [
    contestant(IN_PROCESS, "bare axum, no headers", StatusCode::OK),
    contestant(IN_PROCESS, "two empty layers, no headers", StatusCode::OK),
    contestant(IN_PROCESS, "tower-warden, no headers", StatusCode::OK),
    contestant(IN_PROCESS, "bare axum, two headers", StatusCode::OK),
    contestant(IN_PROCESS, "tower-warden, two headers", StatusCode::OK),
    contestant(IN_PROCESS, "bare axum, five headers", StatusCode::OK),
    contestant(IN_PROCESS, "tower-warden, five headers", StatusCode::OK),
    contestant(IN_PROCESS, "tower-warden, no limit", StatusCode::OK),
    contestant(IN_PROCESS, "tower-warden without cache", StatusCode::OK),
    contestant(IN_PROCESS, "hand-made cache, governor", StatusCode::OK),
    contestant(IN_PROCESS, "jsonwebtoken, no limit", StatusCode::OK),
    contestant(ONE_USER, "bare axum, one user", StatusCode::OK),
    contestant(ONE_USER, "tower-warden, one user", StatusCode::OK),
    contestant(REFUSING, "a constant 429", StatusCode::TOO_MANY_REQUESTS),
    contestant(REFUSING, "tower-warden, all refused", StatusCode::TOO_MANY_REQUESTS),
    contestant(REDIS, "bare axum", StatusCode::OK),
    contestant(REDIS, "tower-warden on Redis", StatusCode::OK),
    contestant(REDIS, "hand-made cache, ConnectionManager", StatusCode::OK),
    contestant(REDIS, "jsonwebtoken, ConnectionManager", StatusCode::OK),
];

const ROUNDS: usize = 17;
const QUICK_ROUNDS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["serve", name] => serve(name),
        _ => Err("usage: servers".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("servers: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// One of them, until it is stopped.
#[tokio::main]
async fn serve(name: &str) -> Outcome<()> {
    let route = Router::new().route("/", get(async || "Hello, world!"));
    let router = match name {
        "bare axum" | "bare axum, no headers" | "bare axum, one user" => route,
        "bare axum, two headers" => rivals::constant_headers::<2>(),
        "bare axum, five headers" => rivals::constant_headers::<5>(),
        "two empty layers, no headers" => rivals::empty_layers(route),
        "tower-warden, no headers" => ours::with_headers(route, LimitHeaders::None),
        "tower-warden, one user" => ours::without_end(route),
        "tower-warden, two headers" => ours::with_headers(route, LimitHeaders::Draft),
        "tower-warden, five headers" => ours::with_headers(route, LimitHeaders::Both),
        "tower-warden, no limit" => ours::without_limit(route),
        "tower-warden without cache" => ours::without_cache(route),
        "hand-made cache, governor" => rivals::with_governor(route),
        "jsonwebtoken, no limit" => rivals::with_jsonwebtoken(route),
        "a constant 429" => rivals::constant_429(),
        "tower-warden, all refused" => ours::refusing(route),
        "tower-warden on Redis" => ours::on_redis(route, &redis_url()?).await?,
        "hand-made cache, ConnectionManager" => {
            rivals::on_redis(route, &redis_url()?, true).await?
        }
        "jsonwebtoken, ConnectionManager" => rivals::on_redis(route, &redis_url()?, false).await?,
        _ => return Err(format!("no contestant is named {name:?}").into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(axum::serve(listener, router).await?)
}

fn redis_url() -> Outcome<String> {
    env::var("REDIS_URL").map_err(|_| "REDIS_URL is not set".into())
}

/// A contestant that runs; it is stopped when this is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(contestant: &Contestant) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["serve", contestant.name])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim().parse() {
            Ok(port) => Ok(Self { process, port }),
            Err(_) => Err(format!("{:?} did not start", contestant.name).into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All of them, in turn, some rounds; and what came of it, as a table and as JSON.
fn compare() -> Outcome<()> {
    let with_redis = env::var_os("REDIS_URL").is_some();
    let contestants: Vec<_> =
        CONTESTANTS.iter().filter(|one| one.group != REDIS || with_redis).collect();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let (all, first) = (results.join("servers.tokens"), results.join("servers.token"));
    let access_tokens = tokens::access_tokens();
    fs::write(&all, access_tokens.join("\n"))?;
    fs::write(&first, &access_tokens[0])?;

    // All run all the time, which costs nothing while they wait; wrk goes from one to the next, so that
    // what else the machine does meets them all.
    let servers: Vec<_> =
        contestants.iter().map(|contestant| Server::start(contestant)).collect::<Outcome<_>>()?;
    let mut measured: Vec<Vec<Measured>> = contestants.iter().map(|_| Vec::new()).collect();
    let rounds = if env::var_os("BENCHES_QUICK").is_some() { QUICK_ROUNDS } else { ROUNDS };
    for round in 0..=rounds {
        let there = 0..contestants.len();
        let turns: Vec<_> = if round % 2 == 0 { there.collect() } else { there.rev().collect() };
        for at in turns {
            let tokens = if contestants[at].group == ONE_USER { &first } else { &all };
            let figures = wrk::drive(servers[at].port, tokens, 1, contestants[at].status)?;
            // The first warms up.
            if round > 0 {
                measured[at].push(figures);
            }
        }
        eprintln!("round {round} of {rounds}");
    }

    let mut rows = Vec::new();
    let mut group = "";
    for (contestant, own) in contestants.iter().zip(&measured) {
        let group_of =
            contestants.iter().zip(&measured).filter(|(one, _)| one.group == contestant.group);
        let ratios: Vec<_> =
            group_of.map(|(other, theirs)| (other.name, wrk::ratio(own, theirs))).collect();
        let median = Measured::median(own);
        if contestant.group != group {
            group = contestant.group;
            println!("\n{group:36} {:>10} {:>7} {:>9}", "requests/s", "ratio", "p99");
        }
        println!(
            "{:36} {:>10.0} {:>7.3} {:>6.2} ms",
            contestant.name, median.per_second, ratios[0].1, median.p99_ms
        );
        rows.push(json!({
            "group": group,
            "name": contestant.name,
            "requests_per_second": median.per_second.round(),
            "ratios": ratios.into_iter().collect::<BTreeMap<_, _>>(),
            "p99_ms": median.p99_ms,
        }));
    }
    let ours = contestants.iter().position(|one| one.name == "tower-warden, five headers");
    let hits = ours.map_or(0.0, |at| wrk::hit_rate(&measured[at]));
    println!(
        "\n{} tokens; of tower-warden's requests at least {:.2} % brought one seen before",
        tokens::USERS,
        100.0 * hits
    );
    println!("signatures by {}", if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "ring" });
    fs::write(results.join("servers.json"), serde_json::to_vec_pretty(&rows)?)?;
    Ok(())
}
