//! Several limits on a cluster: one call for each, undone where one refuses.

use deadpool_redis::redis::RedisResult;
use smallvec::smallvec;

use super::{
    connection::Link,
    queue::{Job, Route},
    script::{Request, Row, Verdict},
};

/// Puts one question to the nodes that it concerns, and answers it.
pub(super) async fn carry(route: Route, mut link: Link, job: Job) -> RedisResult<()> {
    let Job { request, reply } = job;
    let mut taken = Vec::new();
    let answer = if request.settles || request.rows.len() == 1 {
        only(route.ask(&mut link, &[&request]).await)
    } else {
        take_each(&route, &mut link, &request, &mut taken).await
    };
    let failure = answer.as_ref().err().cloned();
    let all = answer.as_ref().is_ok_and(|verdict| verdict.iter().all(|(limit, _)| limit.allowed));
    let unheard = reply.send(answer).is_err();
    // Whoever gave up waiting has been told nothing: that request may count, like one that hung up.
    let keep = all || unheard && failure.is_none();
    for row in taken {
        if !(all && row.flag) {
            let settle = Request { settles: true, rows: smallvec![Row { flag: keep, ..row }] };
            route.ask(&mut link, &[&settle]).await?;
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Takes each on trial; `taken` are those that had room, with their marks.
async fn take_each(
    route: &Route,
    link: &mut Link,
    request: &Request,
    taken: &mut Vec<Row>,
) -> RedisResult<Verdict> {
    let mut verdict = Verdict::new();
    for row in &request.rows {
        let trial = Request { settles: false, rows: smallvec![Row { flag: true, ..row.clone() }] };
        let answers = only(route.ask(link, &[&trial]).await)?;
        for (decision, mark) in answers {
            if decision.allowed && row.cost > 0 {
                taken.push(Row { mark, ..row.clone() });
            }
            verdict.push((decision, mark));
        }
    }
    Ok(verdict)
}

fn only(answer: RedisResult<Vec<Verdict>>) -> RedisResult<Verdict> {
    Ok(answer?.into_iter().next().unwrap_or_default())
}
