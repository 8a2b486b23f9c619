//! Whether a server would have us.

use std::time::Duration;

use redis::RedisResult;
use smallvec::smallvec;

use super::{
    cluster::ask_one,
    connection::{Server, Way, connect_cluster},
    error::RedisConfigError,
    job::Route,
    script::{Request, Row, Verb, Verdict},
    single::is_of_a_cluster,
};
use crate::Quota;

/// How often a cluster is looked for whose node we have met: it may be busy.
const TRIES: u32 = 4;

/// Makes the server do once all that limits need. A node of a cluster says that it is one, as these
/// keys are of different slots; then the cluster is asked. What is not available now is no error.
pub(super) async fn ask(
    server: &Server,
    route: &Route,
    one: &str,
    two: &str,
) -> Result<(), RedisConfigError> {
    let mut answer = all(server, route, one, two).await;
    if matches!(&answer, Err(error) if is_of_a_cluster(error)) {
        find_cluster(server, route.patience).await?;
        answer = all(server, route, one, two).await;
    }
    let Err(error) = answer else { return Ok(()) };
    RedisConfigError::of(error.clone())?;
    tracing::warn!(%error, "Redis decides nothing yet; it is used once it does");
    Ok(())
}

async fn find_cluster(server: &Server, patience: Duration) -> Result<(), RedisConfigError> {
    let mut tries = 0;
    while let Err(error) = server.becomes_cluster(patience).await {
        // A permission that lacks says more than that there is a cluster.
        RedisConfigError::of(error.clone())?;
        tries += 1;
        if tries == TRIES {
            return Err(RedisConfigError::Cluster(error.into()));
        }
        tokio::time::sleep(patience / 4).await;
    }
    Ok(())
}

async fn all(server: &Server, route: &Route, one: &str, two: &str) -> RedisResult<()> {
    let row = |key: &str, limit: u32, ms: u64| Row {
        key: key.to_owned(),
        quota: Quota::new(limit, Duration::from_millis(ms)).unwrap_or(Quota::per_second(1)),
        cost: 1,
        flag: false,
        mark: 0,
        lease: None,
    };
    let take = |row: Row| Request { verb: Verb::Take, rows: smallvec![row] };
    // Each has commands of its own: the first finds no key, the second one that is to live longer,
    // the third is refused.
    let mut takes = vec![take(row(one, u32::MAX, 1)), take(row(one, u32::MAX, 2))];
    takes.push(take(row(one, 1, 2)));
    takes.push(take(Row { flag: true, ..row(two, 1, 1_000) }));
    let held = put(server, route, &takes).await?;
    let mark = held.last().and_then(|verdict| verdict.first()).map_or(0, |found| found.mark.0);
    let give_back =
        Request { verb: Verb::Settle, rows: smallvec![Row { mark, ..row(two, 1, 1_000) }] };
    put(server, route, &[give_back]).await?;
    Ok(())
}

/// Puts these to the server in one call, or to a cluster in one each.
async fn put(server: &Server, route: &Route, requests: &[Request]) -> RedisResult<Vec<Verdict>> {
    let call = async {
        match server.way() {
            Way::Single(source) => {
                let requests: Vec<_> = requests.iter().collect();
                route.ask(&mut source.connect().await?, &requests).await
            }
            Way::Cluster(client) => {
                let mut connection = connect_cluster(client).await?;
                let mut verdicts = Vec::with_capacity(requests.len());
                for request in requests {
                    verdicts.push(ask_one(route, &mut connection, request).await?);
                }
                Ok(verdicts)
            }
        }
    };
    route.time(call, || ()).await
}
