//! Decisions on a cluster: each key is a call of its own, and what one limit refuses is given back
//! under the others.

use std::sync::Arc;

use deadpool_redis::{
    cluster::{ClusterClient, ClusterConnection},
    redis::RedisResult,
};
use smallvec::smallvec;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    connection::connect_cluster,
    error::breaks_connection,
    queue::{Job, Route, WAITING},
    script::{Request, Row, Verdict},
};

/// Takes questions from the queue until it is dropped, and lets each find its nodes.
pub(super) async fn dispatch(
    route: Route,
    client: Arc<ClusterClient>,
    mut jobs: mpsc::Receiver<Job>,
) {
    let mut connection = None;
    let mut calls = JoinSet::new();
    // A node that hangs makes connecting slow: the others are asked by the old connection until
    // there is a new one.
    let mut renewal = JoinSet::new();
    loop {
        tokio::select! {
            Some(call) = calls.join_next() => {
                let broken = matches!(call, Ok(Err(error)) if breaks_connection(&error));
                if broken && renewal.is_empty() {
                    let (client, patience) = (Arc::clone(&client), route.patience);
                    renewal.spawn(async move { connect_cluster(&client, patience).await });
                }
            }
            Some(renewed) = renewal.join_next() => {
                if let Ok(Ok(renewed)) = renewed {
                    connection = Some(renewed);
                }
            }
            job = jobs.recv(), if calls.len() < WAITING => {
                let Some(job) = job else { return };
                let connected = match &connection {
                    Some(connection) => Ok(connection.clone()),
                    None => connect_cluster(&client, route.patience).await,
                };
                match connected {
                    Ok(connected) => {
                        connection = Some(connected.clone());
                        if !job.is_abandoned() {
                            calls.spawn(carry(route.clone(), connected, job));
                        }
                    }
                    Err(error) => _ = job.reply.send(Err(error)),
                }
            }
        }
    }
}

/// Puts one question to the nodes that it concerns, and answers it.
async fn carry(route: Route, connection: ClusterConnection, job: Job) -> RedisResult<()> {
    let Job { request, reply } = job;
    let mut calls = Calls { route, connection };
    if request.settles || request.rows.len() == 1 {
        let answer = calls.ask(&request).await;
        let failure = answer.as_ref().err().cloned();
        _ = reply.send(answer);
        return failure.map_or(Ok(()), Err);
    }
    let mut trials = Vec::new();
    let mut answer = calls.take_each(&request, &mut trials).await;
    if !answer.as_ref().is_ok_and(|verdict| verdict.iter().all(|(limit, _)| limit.is_allowed())) {
        for (i, trial) in trials.drain(..) {
            let given_back = calls.settle(trial, false).await;
            if let (Ok(verdict), Ok(after)) = (&mut answer, given_back) {
                verdict[i] = after[0]; // as many as rows: `read` has seen to it
            }
        }
    }
    let failure = answer.as_ref().err().cloned();
    // The answer needn't wait for what follows.
    _ = reply.send(answer);
    for (i, trial) in trials {
        if !request.rows[i].flag {
            calls.settle(trial, true).await?;
        }
    }
    failure.map_or(Ok(()), Err)
}

struct Calls {
    route: Route,
    connection: ClusterConnection,
}

impl Calls {
    async fn ask(&mut self, request: &Request) -> RedisResult<Verdict> {
        Ok(self.route.ask(&mut self.connection, &[request]).await?.pop().unwrap_or_default())
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
            for (decision, mark) in self.ask(&Request { settles: false, rows }).await? {
                if decision.is_allowed() && row.cost > 0 {
                    trials.push((i, Row { mark: mark.0, ..row.clone() }));
                }
                verdict.push((decision, mark));
            }
        }
        Ok(verdict)
    }

    async fn settle(&mut self, trial: Row, keep: bool) -> RedisResult<Verdict> {
        self.ask(&Request { settles: true, rows: smallvec![Row { flag: keep, ..trial }] }).await
    }
}
