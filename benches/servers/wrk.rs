//! The load: wrk, with 64 connections that are kept open.

use std::{io::ErrorKind, path::Path, process::Command};

use http::StatusCode;

use super::{Outcome, tokens::USERS};

/// What wrk saw of one server.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p99_ms: f64,
}

impl Measured {
    /// The round in the middle.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let mut rounds = rounds.to_vec();
        rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        rounds[rounds.len() / 2]
    }
}

/// How many times the other's rate the one's is, in the round in the middle; there must be one.
pub(crate) fn ratio(one: &[Measured], other: &[Measured]) -> f64 {
    let ratios = one.iter().zip(other).map(|(one, other)| one.per_second / other.per_second);
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The part of the requests whose token had been presented before, where each token has a first time.
pub(crate) fn hit_rate(rounds: &[Measured]) -> f64 {
    let requests: u64 = rounds.iter().map(|round| round.requests).sum();
    1.0 - USERS as f64 / requests as f64
}

/// Drives wrk at a port for so many seconds. All responses must have the status.
pub(crate) fn drive(
    port: u16,
    tokens: &Path,
    seconds: u32,
    status: StatusCode,
) -> Outcome<Measured> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/wrk.lua");
    let output = Command::new("wrk")
        .args(["-t1", "-c64", &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .args([&format!("http://127.0.0.1:{port}/"), "--"])
        .arg(tokens)
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("wrk is not installed (Debian and Ubuntu: apt-get install wrk)".into());
        }
        output => String::from_utf8(output?.stdout)?,
    };
    let figures: Option<Vec<u64>> = output
        .lines()
        .find_map(|line| line.strip_prefix("measured "))
        .and_then(|line| line.split(' ').map(|figure| figure.parse().ok()).collect());
    let Some([requests, microseconds, p99, refused, broken]) = figures.as_deref() else {
        return Err(format!("wrk said:\n{output}").into());
    };
    // One that refuses lets each user in once.
    let others = if status.is_success() { *refused } else { requests - refused };
    let tolerated = if status.is_success() { 0 } else { USERS as u64 };
    if *broken > 0 || others > tolerated {
        return Err(format!("not all answers were {status}; wrk said:\n{output}").into());
    }
    Ok(Measured {
        requests: *requests,
        per_second: *requests as f64 * 1e6 / *microseconds as f64,
        p99_ms: *p99 as f64 / 1e3,
    })
}
