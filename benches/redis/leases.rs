//! One hot key that several servers ask for, with leases and without.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    limiters::{Limiter, TowerWarden},
    measure::Server,
};

const HOT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotRound {
    pub(crate) per_second: f64,
    /// Commands that Redis carried out, of a thousand decisions. A script is one, and each that it calls.
    pub(crate) commands: f64,
    /// Of a hundred decisions one takes longer.
    pub(crate) p99: Duration,
}

/// Lets so many tasks, spread over servers that share nothing but Redis, ask for one key.
pub(crate) async fn hot(
    servers: &[TowerWarden],
    waiting: usize,
    time: Duration,
    redis: &mut Server,
) -> HotRound {
    let enough = Arc::new(AtomicBool::new(false));
    let before = redis.commands();
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for task in 0..waiting {
        let (server, enough) = (servers[task % servers.len()].clone(), Arc::clone(&enough));
        tasks.spawn(async move {
            let mut times = Vec::new();
            while !enough.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert!(server.admits(HOT).await, "the limit is out of reach");
                times.push(begun.elapsed());
                // A decision in process never waits: others have their turn.
                tokio::task::yield_now().await;
            }
            times
        });
    }
    tokio::time::sleep(time).await;
    enough.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let (time, count) = (begun.elapsed(), times.len());
    // Less the question itself.
    let commands = redis.commands() - before - 1;
    times.sort_unstable();
    HotRound {
        per_second: count as f64 / time.as_secs_f64(),
        commands: commands as f64 * 1000.0 / count as f64,
        p99: times[count * 99 / 100],
    }
}
