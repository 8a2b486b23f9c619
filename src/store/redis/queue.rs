//! Where decisions wait.

use std::sync::{PoisonError, RwLock};

use redis::{ErrorKind, RedisError};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    cluster,
    connection::{Server, Way},
    error::unavailable,
    job::{Job, Route},
    script::{Request, Verdict},
    single,
};
use crate::StoreError;

/// How many may wait; who comes then is not decided.
const WAITING: usize = 4096;

/// Questions, and who carries them.
#[derive(Debug)]
pub(super) struct Queue {
    server: Server,
    route: Route,
    /// Who empties it runs in the runtime of the decision that found nobody there: the first, or
    /// the first after the end of that runtime. They end when this is dropped.
    jobs: RwLock<Option<mpsc::Sender<Job>>>,
}

impl Queue {
    pub(super) fn new(server: Server, route: Route) -> Self {
        Self { server, route, jobs: RwLock::new(None) }
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Verdict, StoreError> {
        let (job, answer) = Job::new(request);
        self.put(job)?;
        let answer = answer.await.unwrap_or_else(|_| Err(gone("who carried it is gone")));
        answer.map_err(unavailable)
    }

    fn put(&self, job: Job) -> Result<(), StoreError> {
        {
            let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = place(jobs.as_ref())? {
                place.send(job);
                return Ok(());
            }
        }
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        // Another may have been faster.
        if place(jobs.as_ref())?.is_none() {
            let (sender, receiver) = mpsc::channel(WAITING);
            tokio::spawn(carry(self.server.clone(), self.route.clone(), receiver));
            *jobs = Some(sender);
        }
        if let Some(place) = place(jobs.as_ref())? {
            place.send(job);
        }
        Ok(())
    }
}

/// Where nobody empties the queue there is no place.
fn place(jobs: Option<&mpsc::Sender<Job>>) -> Result<Option<mpsc::Permit<'_, Job>>, StoreError> {
    match jobs.map(mpsc::Sender::try_reserve) {
        Some(Ok(place)) => Ok(Some(place)),
        Some(Err(TrySendError::Full(()))) => Err(StoreError::overloaded("too many decisions wait")),
        Some(Err(TrySendError::Closed(()))) | None => Ok(None),
    }
}

/// Carries questions to a server, or to a cluster, which one address may turn out to be.
async fn carry(server: Server, route: Route, mut jobs: mpsc::Receiver<Job>) {
    let mut misplaced = Vec::new();
    loop {
        let source = match server.way() {
            Way::Cluster(client) => return cluster::carry(&route, client, misplaced, jobs).await,
            Way::Single(source) => source,
        };
        let Some((error, found)) = single::carry(&route, source, &mut jobs).await else { return };
        match server.becomes_cluster(route.patience).await {
            Ok(()) => misplaced = found,
            Err(_) => {
                for job in found {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }
}

fn gone(why: &'static str) -> RedisError {
    (ErrorKind::Client, why).into()
}
