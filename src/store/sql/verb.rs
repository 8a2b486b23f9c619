//! How a verb is carried out: to its end, within a deadline, again where transactions collided.

use std::time::{Duration, SystemTime};

use sqlx::{Connection, Pool};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::{Meaning, Primitives, Row, SqlStore, Value, Wing, Work, statement::Statement};
use crate::{
    Origin, SharedClock, StoreError,
    audit::{AuditEvent, AuditTrail},
    token::Revocation,
};

/// How long a verb takes at most, waiting for a connection included: a request is to be answered
/// within five seconds.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a connection may take to come back to the pool, which asks it first how it is.
const RETURN: Duration = Duration::from_secs(1);

/// How often a verb is tried while it collides with others.
const ATTEMPTS: u32 = 5;

/// What an algorithm works on: a connection, usually in a transaction, and the time.
pub(super) struct Tx<'c> {
    connection: &'c mut dyn Primitives,
    clock: &'c SharedClock,
    /// Whether statements may be kept prepared on the connection.
    prepare: bool,
    /// What is to be told once this is committed.
    pub(super) revoked: Vec<Revocation>,
    pub(super) audit: &'c AuditTrail,
    /// What was done, for others to hear of then.
    pub(super) noted: Vec<AuditEvent>,
}

/// A verb: what is done with owned arguments, perhaps more than once.
pub(super) type Verb<A, T> = for<'v, 'c> fn(&'v mut Tx<'c>, &'v A) -> Work<'v, T>;

impl Tx<'_> {
    /// Carries a statement out, and answers how many rows it wrote.
    pub(super) async fn execute<const N: usize>(
        &mut self,
        statement: &Statement,
        values: [Value; N],
    ) -> sqlx::Result<u64> {
        self.connection.execute(statement, values.into(), self.prepare).await
    }

    /// The one row of a statement, or none.
    pub(super) async fn one<const N: usize>(
        &mut self,
        statement: &Statement,
        values: [Value; N],
    ) -> sqlx::Result<Option<Row>> {
        Ok(self.all(statement, values).await?.into_iter().next())
    }

    /// The rows of a statement.
    pub(super) async fn all<const N: usize>(
        &mut self,
        statement: &Statement,
        values: [Value; N],
    ) -> sqlx::Result<Vec<Row>> {
        self.connection.fetch(statement, values.into(), self.prepare).await
    }

    /// What time it is. To be asked once what it is compared with is locked.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }
}

impl<W: Wing> SqlStore<W> {
    /// Carries out a verb of several statements: all of them, and what it answers is committed, or
    /// none.
    pub(super) async fn transact<A, T>(
        &self,
        arguments: A,
        verb: Verb<A, T>,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.carry_out(arguments, verb, true).await
    }

    /// Carries out a verb of one statement.
    pub(super) async fn ask<A, T>(&self, arguments: A, verb: Verb<A, T>) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        // Behind a pooler the steps of one statement are kept together by a transaction alone.
        self.carry_out(arguments, verb, self.behind_pooler).await
    }

    /// In a task of its own, which goes on when the caller stops waiting: what was begun is finished,
    /// and no connection returns to the pool in mid-`BEGIN` and takes an open transaction along (sqlx
    /// issue 4393).
    async fn carry_out<A, T>(
        &self,
        arguments: A,
        verb: Verb<A, T>,
        transact: bool,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let store = self.clone();
        let task = async move { store.attempt(&arguments, verb, transact).await };
        match tokio::spawn(Origin::inherited(task).in_current_span()).await {
            Ok(result) => result,
            Err(failed) if failed.is_panic() => Err(StoreError::internal(failed)),
            Err(shut_down) => Err(StoreError::unavailable(shut_down)),
        }
    }

    async fn attempt<A: Sync, T>(
        &self,
        arguments: &A,
        verb: Verb<A, T>,
        transact: bool,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + DEADLINE;
        let mut connection = lend(&self.pool, deadline).await?;
        let mut attempts = 1..ATTEMPTS;
        let result = loop {
            let once = self.once(&mut *connection, arguments, verb, transact);
            match timeout_at(deadline, once).await {
                Ok(Ok(value)) => break Ok(value),
                Ok(Err(error)) => match meaning::<W>(&error) {
                    Meaning::Collision if attempts.next().is_some() => {}
                    Meaning::Demoted => {
                        // Its address may lead to another server by now.
                        connection.close_on_drop();
                        return Err(store_error::<W>(error));
                    }
                    _ => break Err(store_error::<W>(error)),
                },
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

    async fn once<A: Sync, T>(
        &self,
        connection: &mut W::Connection,
        arguments: &A,
        verb: Verb<A, T>,
        transact: bool,
    ) -> sqlx::Result<T> {
        if !transact {
            let mut tx = self.tx(connection);
            return verb(&mut tx, arguments).await;
        }
        let begin = if self.behind_pooler { W::BEGIN_BEHIND_POOLER } else { W::BEGIN };
        let mut transaction = connection.begin_with(begin).await?;
        let mut tx = self.tx(&mut *transaction);
        let value = verb(&mut tx, arguments).await?;
        let (revoked, noted) = (std::mem::take(&mut tx.revoked), std::mem::take(&mut tx.noted));
        if let (false, Some(notify)) = (revoked.is_empty(), &W::NOTIFY) {
            tx.execute(notify, []).await?;
        }
        transaction.commit().await?;
        // In this process at once: whoever is answered finds it so.
        revoked.iter().for_each(|revocation| self.revocations.apply(revocation));
        noted.iter().for_each(|event| self.audit.tell(event));
        Ok(value)
    }

    fn tx<'c>(&'c self, connection: &'c mut dyn Primitives) -> Tx<'c> {
        Tx {
            connection,
            clock: &self.clock,
            prepare: !self.behind_pooler,
            revoked: Vec::new(),
            audit: &self.audit,
            noted: Vec::new(),
        }
    }
}

async fn lend<W: Wing>(
    pool: &Pool<W>,
    deadline: Instant,
) -> Result<sqlx::pool::PoolConnection<W>, StoreError> {
    // Whatever keeps a connection from being made is an outage. A balancer with nothing behind it takes
    // it and hangs up, which is a breach of the protocol; a database that lets nobody in has many codes.
    timeout_at(deadline, pool.acquire())
        .await
        .map_err(StoreError::unavailable)?
        .map_err(StoreError::unavailable)
}

/// Folds an error of sqlx into ours.
pub(in crate::store) fn store_error<W: Wing>(error: sqlx::Error) -> StoreError {
    match meaning::<W>(&error) {
        Meaning::Collision | Meaning::Unavailable | Meaning::Demoted => {
            StoreError::unavailable(error)
        }
        Meaning::Fault => StoreError::internal(error),
    }
}

fn meaning<W: Wing>(error: &sqlx::Error) -> Meaning {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        Database(error) => W::meaning(&**error),
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed => {
            Meaning::Unavailable
        }
        _ => Meaning::Fault,
    }
}
