//! How a verb is carried out: to its end, within a deadline, again where transactions collided.

use std::{pin::Pin, time::Duration};

use sqlx::{Database, Pool, error::DatabaseError};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use crate::StoreError;

/// How long a verb takes at most, waiting for a connection included: a request is to be answered
/// within five seconds.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a connection may take to come back to the pool, which asks it first how it is.
const RETURN: Duration = Duration::from_secs(1);

/// How often a verb is tried while it collides with others.
const ATTEMPTS: u32 = 5;

/// What a verb does on a connection.
pub(in crate::store) type Work<'c, T> = Pin<Box<dyn Future<Output = sqlx::Result<T>> + Send + 'c>>;

/// What the wings do differently.
pub(in crate::store) trait Wing: Database {
    /// Whether a connection that does not answer in time is closed, or goes back to the pool when
    /// it does.
    const CLOSE_WHEN_LATE: bool;

    /// What an error of the database means.
    fn meaning(error: &dyn DatabaseError) -> Meaning;
}

/// What an error of the database means for a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Meaning {
    /// It lost against another transaction, and was undone: once more.
    Collision,
    /// The same may work later.
    Unavailable,
    /// It should not happen.
    Fault,
}

/// Carries out `work` on a connection of the pool.
///
/// In a task of its own, which goes on when the caller stops waiting: what was begun is finished,
/// and no connection returns to the pool in mid-`BEGIN` and takes an open transaction along (sqlx
/// issue 4393).
pub(in crate::store) async fn carry_out<W: Wing, A, T>(
    pool: &Pool<W>,
    arguments: A,
    work: for<'c> fn(&'c mut W::Connection, &'c A) -> Work<'c, T>,
) -> Result<T, StoreError>
where
    A: Send + Sync + 'static,
    T: Send + 'static,
{
    let pool = pool.clone();
    let task = async move { attempt(&pool, &arguments, work).await };
    match tokio::spawn(task.in_current_span()).await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => Err(StoreError::internal(failed)),
        Err(shut_down) => Err(StoreError::unavailable(shut_down)),
    }
}

async fn attempt<W: Wing, A, T>(
    pool: &Pool<W>,
    arguments: &A,
    work: for<'c> fn(&'c mut W::Connection, &'c A) -> Work<'c, T>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + DEADLINE;
    let mut connection = timeout_at(deadline, pool.acquire())
        .await
        .map_err(StoreError::unavailable)?
        .map_err(store_error::<W>)?;
    let mut attempts = 1..ATTEMPTS;
    let result = loop {
        match timeout_at(deadline, work(&mut connection, arguments)).await {
            Ok(Ok(value)) => break Ok(value),
            Ok(Err(error)) => {
                if meaning::<W>(&error) != Meaning::Collision || attempts.next().is_none() {
                    break Err(store_error::<W>(error));
                }
            }
            Err(late) => {
                if W::CLOSE_WHEN_LATE {
                    connection.close_on_drop();
                }
                return Err(StoreError::unavailable(late));
            }
        }
    };
    if W::CLOSE_WHEN_LATE {
        // Dropping it does the same, but waits for a server that hangs as long as TCP does.
        tokio::spawn(timeout(RETURN, connection.return_to_pool()));
    }
    result
}

/// Folds an error of sqlx into ours.
pub(in crate::store) fn store_error<W: Wing>(error: sqlx::Error) -> StoreError {
    match meaning::<W>(&error) {
        Meaning::Collision | Meaning::Unavailable => StoreError::unavailable(error),
        Meaning::Fault => StoreError::internal(error),
    }
}

fn meaning<W: Wing>(error: &sqlx::Error) -> Meaning {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    match error {
        Database(error) => W::meaning(&**error),
        Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => Meaning::Unavailable,
        _ => Meaning::Fault,
    }
}
