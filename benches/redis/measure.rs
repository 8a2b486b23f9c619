//! Loads, and what a round of one is told by.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Client, Connection, InfoDict};
use tokio::task::JoinSet;

use super::limiters::Limiter;

/// Clients by Zipf's law: the second half as busy as the first, and so on.
pub(crate) fn zipf(how_many: usize) -> Arc<[Ipv4Addr]> {
    let mut sums = Vec::with_capacity(how_many);
    let mut total = 0.0;
    for rank in 1..=how_many {
        total += 1.0 / rank as f64;
        sums.push(total);
    }
    let mut random = random();
    let mut pick = || {
        let at = random() as f64 / u64::MAX as f64 * total;
        client(sums.partition_point(|sum| *sum < at))
    };
    (0..1 << 17).map(|_| pick()).collect()
}

/// So many clients, all equally busy. With no more of them than tasks each task has its own.
pub(crate) fn even(how_many: usize) -> Arc<[Ipv4Addr]> {
    (0..how_many).map(client).collect()
}

fn client(i: usize) -> Ipv4Addr {
    // Neighbours are none in memory.
    Ipv4Addr::from((i as u32).wrapping_mul(2_654_435_761))
}

fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// What a round of load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// Of one decision, in this process and in Redis.
    pub(crate) cpu: Option<(Duration, Duration)>,
}

/// Lets so many tasks ask without pause for so long.
pub(crate) async fn load(
    limiter: &impl Limiter,
    clients: &Arc<[Ipv4Addr]>,
    waiting: usize,
    time: Duration,
    server: &mut Server,
) -> Round {
    let enough = Arc::new(AtomicBool::new(false));
    let (here, there) = (own_cpu(), server.cpu());
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for first in 0..waiting {
        let (limiter, clients, enough) =
            (limiter.clone(), Arc::clone(clients), Arc::clone(&enough));
        tasks.spawn(async move {
            let mut decisions = 0_usize;
            while !enough.load(Ordering::Relaxed) {
                limiter.admits(clients[(first + decisions * waiting) % clients.len()]).await;
                decisions += 1;
            }
            decisions
        });
    }
    tokio::time::sleep(time).await;
    enough.store(true, Ordering::Relaxed);
    let decisions: usize = tasks.join_all().await.into_iter().sum();
    let time = begun.elapsed();
    let each = |spent: Duration| spent.div_f64(decisions as f64);
    Round {
        per_second: decisions as f64 / time.as_secs_f64(),
        cpu: here.zip(own_cpu()).map(|(before, after)| {
            (each(after - before), each(server.cpu().saturating_sub(there)))
        }),
    }
}

/// How long one decision takes where nobody else waits, each of so many.
pub(crate) async fn one_by_one(
    limiter: &impl Limiter,
    clients: &Arc<[Ipv4Addr]>,
    how_many: usize,
) -> Duration {
    let (limiter, clients) = (limiter.clone(), Arc::clone(clients));
    let work = async move {
        let mut times = Vec::with_capacity(how_many);
        for i in 0..how_many {
            let begun = Instant::now();
            limiter.admits(clients[i % clients.len()]).await;
            times.push(begun.elapsed());
        }
        median(times)
    };
    tokio::spawn(work).await.expect("a load")
}

pub(crate) fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("a number"));
    values[values.len() / 2]
}

/// A connection to look at the server by.
pub(crate) struct Server(Connection);

impl Server {
    pub(crate) fn new(client: &Client) -> Self {
        Self(client.get_connection().expect("a Redis server at REDIS_URL"))
    }

    pub(crate) fn empty(&mut self) {
        redis::cmd("FLUSHALL").exec(&mut self.0).expect("to empty it");
    }

    pub(crate) fn load(&mut self, script: &str) {
        redis::cmd("SCRIPT").arg("LOAD").arg(script).exec(&mut self.0).expect("to load it");
    }

    pub(crate) fn version(&mut self) -> String {
        self.info("redis_version")
    }

    pub(crate) fn keys(&mut self) -> u64 {
        redis::cmd("DBSIZE").query(&mut self.0).expect("a size")
    }

    /// How many commands it has carried out, without those of this connection's own.
    pub(crate) fn commands(&mut self) -> u64 {
        self.info::<u64>("total_commands_processed")
    }

    fn cpu(&mut self) -> Duration {
        let user: f64 = self.info("used_cpu_user");
        Duration::from_secs_f64(user + self.info::<f64>("used_cpu_sys"))
    }

    fn info<T: redis::FromRedisValue>(&mut self, field: &str) -> T {
        let info: InfoDict = redis::cmd("INFO").query(&mut self.0).expect("INFO");
        info.get(field).expect("a field of INFO")
    }
}

/// What this process has taken, where the system tells.
fn own_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold anything: utime and stime are the 12th and 13th, in 1/100 s.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis(10 * (ticks.next()? + ticks.next()?)))
}
