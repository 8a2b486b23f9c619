//! Decisions that wait together travel together: to one server. (To a cluster: [`cluster`].)
//!
//! A few couriers share one queue. Each takes all that waits there, up to a cap, and puts it to
//! the server in one call: the busier the store, the more decisions share a round trip, and an
//! idle store adds no delay. Each courier keeps a connection of its own, and makes another after
//! a failure, so that no more than [`COURIERS`] connections are ever attempted at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_redis::redis::{ErrorKind, RedisError, RedisResult, aio::ConnectionLike};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    cluster,
    connection::{Lent, Pool, Server, connect, connect_cluster},
    error::breaks_connection,
    script::{Request, Verdict, Window},
};
use crate::{SharedClock, signals};

/// One call is on its way while the next is gathered.
pub(super) const COURIERS: usize = 2;

/// How many decisions share a call at most, so that none blocks the server for long.
const BATCH: usize = 128;

/// How many may wait; who comes then is not decided.
pub(super) const WAITING: usize = 4096;

/// A connection that has not been used for so long may have been closed at the other end.
const IDLE: Duration = Duration::from_secs(1);

/// A question on its way, and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<RedisResult<Verdict>>,
}

impl Job {
    /// Whether nobody waits for it any more: then it need not count. A hold is settled even so.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed() && !self.request.settles
    }
}

/// The queue's end to put questions in.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    /// Starts who empties it. They end when the queue is dropped.
    pub(super) fn spawn(route: &Route) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        match &route.server {
            Server::Single(pool) => {
                let jobs = Arc::new(Mutex::new(receiver));
                for _ in 0..COURIERS {
                    let (route, pool) = (route.clone(), pool.clone());
                    let courier = Courier { route, pool, kept: None };
                    tokio::spawn(courier.run(Arc::clone(&jobs)));
                }
            }
            Server::Cluster(client) => {
                let (route, client) = (route.clone(), Arc::clone(client));
                tokio::spawn(cluster::dispatch(route, client, receiver));
            }
        }
        Self(sender)
    }

    pub(super) async fn ask(&self, request: Request) -> RedisResult<Verdict> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Job { request, reply }).map_err(|_| gone("too many decisions wait"))?;
        answer.await.unwrap_or_else(|_| Err(gone("the courier is gone")))
    }
}

fn gone(why: &'static str) -> RedisError {
    (ErrorKind::Client, why).into()
}

/// What couriers know of the way.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) server: Server,
    pub(super) window: Arc<Window>,
    /// The longest for connecting, and for each call.
    pub(super) patience: Duration,
    /// In place of the server's time, in tests.
    pub(super) clock: Option<SharedClock>,
    /// How many values at our keys were not ours.
    pub(super) replaced: Arc<AtomicU64>,
    /// How many connections have broken. One that is older than the last break is not trusted: it
    /// leads to the same server, and may be as dead without knowing.
    pub(super) breaks: Arc<AtomicU64>,
}

impl Route {
    /// Asks on a connection of its own.
    pub(super) async fn ask_once(&self, requests: &[&Request]) -> RedisResult<Vec<Verdict>> {
        match &self.server {
            Server::Single(pool) => {
                self.ask(connect(pool, self.patience).await?.connection(), requests).await
            }
            Server::Cluster(client) => {
                self.ask(&mut connect_cluster(client, self.patience).await?, requests).await
            }
        }
    }

    pub(super) async fn ask(
        &self,
        connection: &mut impl ConnectionLike,
        requests: &[&Request],
    ) -> RedisResult<Vec<Verdict>> {
        let since_epoch = |clock: &SharedClock| {
            clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
        };
        let now = self.clock.as_ref().map(since_epoch);
        let answer = self.window.ask(connection, requests, now, self.patience).await?;
        if answer.replaced > 0 {
            self.replaced.fetch_add(answer.replaced, Ordering::Relaxed);
            signals::limit_values_replaced(answer.replaced);
            tracing::warn!(values = answer.replaced, "replaced what was not a limit's state");
        }
        Ok(answer.verdicts)
    }
}

/// A connection that is kept from one call to the next: the pool looks at it at each checkout, and
/// that is a round trip of its own.
struct Kept {
    lent: Lent,
    /// How many had broken when it was made.
    breaks: u64,
    used: Instant,
}

struct Courier {
    route: Route,
    pool: Pool,
    kept: Option<Kept>,
}

impl Courier {
    async fn run(mut self, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            if jobs.lock().await.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            self.carry(batch).await;
        }
    }

    async fn carry(&mut self, mut batch: Vec<Job>) {
        let mut kept = match self.connection().await {
            Ok(kept) => kept,
            Err(error) => return answer_all(batch, Err(error)),
        };
        batch.retain(|job| !job.is_abandoned());
        let requests: Vec<_> = batch.iter().map(|job| &job.request).collect();
        let answer = match requests.is_empty() {
            true => Ok(Vec::new()),
            false => self.route.ask(kept.lent.connection(), &requests).await,
        };
        match &answer {
            Err(error) if breaks_connection(error) => {
                self.route.breaks.fetch_add(1, Ordering::Relaxed);
                kept.lent.discard();
            }
            _ => self.kept = Some(Kept { used: Instant::now(), ..kept }),
        }
        answer_all(batch, answer);
    }

    async fn connection(&mut self) -> RedisResult<Kept> {
        let breaks = self.route.breaks.load(Ordering::Relaxed);
        match self.kept.take() {
            Some(kept) if kept.breaks != breaks => kept.lent.discard(),
            // Servers and firewalls close what is idle. Given back to the pool it is looked at
            // before it comes again.
            Some(kept) if kept.used.elapsed() > IDLE => drop(kept),
            Some(kept) => return Ok(kept),
            None => {}
        }
        let lent = connect(&self.pool, self.route.patience).await?;
        Ok(Kept { lent, breaks, used: Instant::now() })
    }
}

/// Hands out the answers. Who has gone meanwhile is not missed.
fn answer_all(batch: Vec<Job>, answer: RedisResult<Vec<Verdict>>) {
    match answer {
        Ok(verdicts) => {
            for (job, verdict) in batch.into_iter().zip(verdicts) {
                _ = job.reply.send(Ok(verdict));
            }
        }
        Err(error) => {
            for job in batch {
                _ = job.reply.send(Err(error.clone()));
            }
        }
    }
}
