//! What the wings do differently.

use std::{pin::Pin, sync::Arc};

use sqlx::{Database, Pool, error::DatabaseError};
use tokio::{sync::Notify, task::AbortHandle};

use super::{Row, Statement, Value};

/// Something that a connection does.
pub(in crate::store) type Work<'c, T> = Pin<Box<dyn Future<Output = sqlx::Result<T>> + Send + 'c>>;

/// A database that accounts can be kept in.
pub trait Wing: Database<Connection: Primitives> {
    /// Whether a connection that does not answer in time is closed, or goes back to the pool when
    /// it does.
    const CLOSE_WHEN_LATE: bool;

    /// What begins a transaction that writes, and sees what others wrote while it waited for a lock.
    const BEGIN: &'static str;

    /// The same behind a pooler, with what is otherwise set once for a connection.
    const BEGIN_BEHIND_POOLER: &'static str = Self::BEGIN;

    /// What wakes others who [`listen`](Self::listen), with the commit of the transaction.
    const NOTIFY: Option<Statement>;

    /// What an error of the database means.
    fn meaning(error: &dyn DatabaseError) -> Meaning;

    /// Whether the pool leads to a pooler that gives each transaction another connection: nothing then
    /// may last longer than a transaction.
    fn is_behind_pooler(_: &Pool<Self>) -> bool {
        false
    }

    /// Tells when another server says that something was revoked, where the database can.
    fn listen(pool: &Pool<Self>, changed: Arc<Notify>) -> Option<AbortHandle>;
}

/// What a connection does for the algorithms.
pub trait Primitives: Send {
    /// Carries a statement out, and answers how many rows it wrote. It may be kept prepared for the
    /// next time, unless it is told not to.
    fn execute<'c>(
        &'c mut self,
        statement: &'c Statement,
        values: Vec<Value>,
        prepare: bool,
    ) -> Work<'c, u64>;

    /// The rows of a statement.
    fn fetch<'c>(
        &'c mut self,
        statement: &'c Statement,
        values: Vec<Value>,
        prepare: bool,
    ) -> Work<'c, Vec<Row>>;

    /// Carries out a text of several statements.
    fn script(&mut self, text: &'static str) -> Work<'_, ()>;
}

/// What an error of the database means for a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It lost against another transaction, and was undone: once more.
    Collision,
    /// The same may work later.
    Unavailable,
    /// The same may work later, on another connection: this one leads to a server that no longer
    /// takes what is written.
    Demoted,
    /// It should not happen.
    Fault,
}
