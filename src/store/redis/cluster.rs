//! Several limits on a cluster: one call for each, undone where one refuses.

use deadpool_redis::redis::RedisResult;
use smallvec::smallvec;

use super::{
    connection::Link,
    queue::{Job, Route},
    script::{Request, Row, Verdict},
};

/// Puts one question to the nodes that it concerns, and answers it.
pub(super) async fn carry(route: Route, link: Link, job: Job) -> RedisResult<()> {
    let Job { request, reply } = job;
    let mut calls = Calls { route, link };
    if request.settles || request.rows.len() == 1 {
        let answer = calls.ask(&request).await;
        let failure = answer.as_ref().err().cloned();
        _ = reply.send(answer);
        return failure.map_or(Ok(()), Err);
    }
    let mut trials = Vec::new();
    let mut answer = calls.take_each(&request, &mut trials).await;
    if !answer.as_ref().is_ok_and(|verdict| verdict.iter().all(|(limit, _)| limit.allowed)) {
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
    link: Link,
}

impl Calls {
    async fn ask(&mut self, request: &Request) -> RedisResult<Verdict> {
        Ok(self.route.ask(&mut self.link, &[request]).await?.pop().unwrap_or_default())
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
                if decision.allowed && row.cost > 0 {
                    trials.push((i, Row { mark, ..row.clone() }));
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
