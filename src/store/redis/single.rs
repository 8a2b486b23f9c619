//! Decisions that wait together travel together, to one server.
//!
//! All that waits, up to a cap, is put to the server in one call while the one before is on its way:
//! the busier the store, the more decisions share a round trip, and an idle store adds no delay. A
//! call that takes longer than a request waits for it is set aside, so that it keeps nobody else.

use std::{mem, sync::Arc};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::{Semaphore, mpsc};

use super::{
    connection::{Connections, Source},
    job::{Job, Route},
    script::Verdict,
};

/// One call is on its way while the next is gathered.
const AT_ONCE: usize = 2;

/// With those that take too long. So many connections there are at most.
const AT_MOST: usize = 6;

/// How many decisions share a call at most, so that none blocks the server for long.
const BATCH: usize = 128;

/// Questions that the server didn't answer, because it is a node of a cluster.
pub(super) type Misplaced = (RedisError, Vec<Job>);

/// Takes questions from the queue until it is dropped, or until the server turns out to be a node
/// of a cluster.
pub(super) async fn carry(
    route: &Route,
    source: &Source,
    jobs: &mut mpsc::Receiver<Job>,
) -> Option<Misplaced> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let connections = Arc::new(Connections::new(source.clone()));
    // In this task, all of them: where nobody else waits, to wake another one takes longer than its work.
    let mut calls = FuturesUnordered::new();
    let (mut place, mut batch) = (None, Vec::with_capacity(BATCH));
    let (error, mut misplaced) = loop {
        tokio::select! {
            biased;
            Some(ended) = calls.next() => {
                if let Some(misplaced) = ended {
                    break misplaced;
                }
            }
            Ok(got) = Arc::clone(&places).acquire_owned(),
                if place.is_none() && calls.len() < AT_MOST => place = Some(got),
            waiting = jobs.recv_many(&mut batch, BATCH), if place.is_some() => {
                if waiting == 0 {
                    // What is on its way arrives.
                    while calls.next().await.is_some() {}
                    return None;
                }
                let courier =
                    Courier { route: route.clone(), connections: Arc::clone(&connections) };
                let (batch, place) = (mem::take(&mut batch), place.take());
                calls.push(courier.carry(batch, || drop(place)));
            }
        }
    };
    while let Some(ended) = calls.next().await {
        if let Some((_, more)) = ended {
            misplaced.extend(more);
        }
    }
    Some((error, misplaced))
}

struct Courier {
    route: Route,
    connections: Arc<Connections>,
}

impl Courier {
    /// Puts these to the server, and hands out the answers. `late` is told when it takes too long.
    async fn carry(self, batch: Vec<Job>, late: impl FnOnce()) -> Option<Misplaced> {
        let mut batch = batch;
        let answer = self.route.time(self.ask(&mut batch), late).await;
        match answer {
            Ok(verdicts) => {
                for (job, verdict) in batch.into_iter().zip(verdicts) {
                    job.answer(Ok(verdict));
                }
            }
            Err(error) if is_of_a_cluster(&error) => return Some((error, batch)),
            Err(error) => {
                if error.is_timeout() {
                    self.connections.distrust();
                }
                for job in batch {
                    job.answer(Err(error.clone()));
                }
            }
        }
        None
    }

    async fn ask(&self, batch: &mut Vec<Job>) -> RedisResult<Vec<Verdict>> {
        let mut connection = self.connections.get().await?;
        batch.retain(|job| !job.is_abandoned());
        let requests: Vec<_> = batch.iter().map(|job| &job.request).collect();
        let answer = match requests.is_empty() {
            true => Ok(Vec::new()),
            false => self.route.ask(connection.server(), &requests).await,
        };
        self.connections.give_back(connection, answer.as_ref().err());
        answer
    }
}

/// Whether this is what a node of a cluster says, which has not run anything then.
pub(super) fn is_of_a_cluster(error: &RedisError) -> bool {
    let kinds = [ServerErrorKind::Moved, ServerErrorKind::CrossSlot];
    kinds.iter().any(|kind| error.kind() == ErrorKind::Server(*kind))
}
