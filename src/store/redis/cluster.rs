//! Decisions on a cluster: each key is a call of its own, and what one limit refuses is given back
//! under the others.

use std::sync::Arc;

use redis::{
    ErrorKind, RedisResult, ServerErrorKind, cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use smallvec::smallvec;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    connection::connect_cluster,
    error::breaks_connection,
    job::{Job, Route},
    script::{Found, Request, Row, Verb, Verdict},
};

/// How many calls are out at most.
const AT_MOST: usize = 4096;

/// Takes questions, these first, until the queue is dropped, and lets each find its nodes.
pub(super) async fn carry(
    route: &Route,
    client: &Arc<ClusterClient>,
    first: Vec<Job>,
    mut jobs: mpsc::Receiver<Job>,
) {
    let mut first = first.into_iter();
    let mut connection = None;
    let mut calls = JoinSet::new();
    // A node that hangs makes connecting slow: the others are asked by the old connection until
    // there is a new one.
    let mut renewal = JoinSet::new();
    loop {
        let next = async {
            match first.next() {
                Some(job) => Some(job),
                None => jobs.recv().await,
            }
        };
        tokio::select! {
            Some(call) = calls.join_next() => {
                let broken = matches!(call, Ok(Err(error)) if breaks_connection(&error));
                if broken && renewal.is_empty() {
                    renewal.spawn(connect(route.clone(), Arc::clone(client)));
                }
            }
            Some(renewed) = renewal.join_next() => {
                if let Ok(Ok(renewed)) = renewed {
                    connection = Some(renewed);
                }
            }
            job = next, if calls.len() < AT_MOST => {
                let Some(job) = job else { return calls.detach_all() };
                let connected = match &connection {
                    Some(connection) => Ok(ClusterConnection::clone(connection)),
                    None => connect(route.clone(), Arc::clone(client)).await,
                };
                match connected {
                    Ok(connected) => {
                        connection = Some(connected.clone());
                        if !job.is_abandoned() {
                            calls.spawn(ask(route.clone(), connected, job));
                        }
                    }
                    Err(error) => job.answer(Err(error)),
                }
            }
        }
    }
}

async fn connect(route: Route, client: Arc<ClusterClient>) -> RedisResult<ClusterConnection> {
    route.time(connect_cluster(&client), || ()).await
}

/// Puts one question to the nodes that it concerns, and answers it.
async fn ask(route: Route, connection: ClusterConnection, job: Job) -> RedisResult<()> {
    let request = job.request.clone();
    let mut calls = Calls { route, connection };
    if request.verb != Verb::Take || request.rows.len() == 1 {
        let answer = calls.ask(&request).await;
        let failure = answer.as_ref().err().cloned();
        job.answer(answer);
        return failure.map_or(Ok(()), Err);
    }
    let mut trials = Vec::new();
    let mut answer = calls.take_each(&request, &mut trials).await;
    if !answer.as_ref().is_ok_and(|verdict| verdict.iter().all(Found::is_allowed)) {
        for (i, trial) in trials.drain(..) {
            let given_back = calls.settle(trial, false).await;
            if let (Ok(verdict), Ok(after)) = (&mut answer, given_back) {
                verdict[i] = after[0]; // as many as rows: `read` has seen to it
            }
        }
    }
    let failure = answer.as_ref().err().cloned();
    // The answer needn't wait for what follows.
    job.answer(answer);
    for (i, trial) in trials {
        if !request.rows[i].flag {
            calls.settle(trial, true).await?;
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Puts a question about one key to the node that has it.
pub(super) async fn ask_one(
    route: &Route,
    connection: &mut ClusterConnection,
    request: &Request,
) -> RedisResult<Verdict> {
    let mut answer = route.ask(connection, &[request]).await;
    let moved = ErrorKind::Server(ServerErrorKind::Moved);
    if answer.as_ref().is_err_and(|error| error.kind() == moved) {
        // It has not run; the client knows now where the key is.
        answer = route.ask(connection, &[request]).await;
    }
    Ok(answer?.pop().unwrap_or_default())
}

struct Calls {
    route: Route,
    connection: ClusterConnection,
}

impl Calls {
    async fn ask(&mut self, request: &Request) -> RedisResult<Verdict> {
        let call = ask_one(&self.route, &mut self.connection, request);
        self.route.time(call, || ()).await
    }

    /// Takes each on trial. `trials` are those that were counted, by their place.
    async fn take_each(
        &mut self,
        request: &Request,
        trials: &mut Vec<(usize, Row)>,
    ) -> RedisResult<Verdict> {
        let mut verdict = Verdict::new();
        for (i, row) in request.rows.iter().enumerate() {
            let rows = smallvec![Row { flag: true, ..row.clone() }];
            for found in self.ask(&Request { verb: Verb::Take, rows }).await? {
                if found.is_allowed() && row.cost > 0 {
                    trials.push((i, Row { mark: found.mark.0, ..row.clone() }));
                }
                verdict.push(found);
            }
        }
        Ok(verdict)
    }

    async fn settle(&mut self, trial: Row, keep: bool) -> RedisResult<Verdict> {
        self.ask(&Request { verb: Verb::Settle, rows: smallvec![Row { flag: keep, ..trial }] })
            .await
    }
}
