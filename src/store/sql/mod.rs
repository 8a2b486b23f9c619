//! Accounts in SQL: what both wings do, told once.
//!
//! The plan, from the bottom:
//!
//! - A wing ([`Wing`]) knows its database: how a transaction begins there, what its errors mean, and
//!   the two things that its connection does for us ([`Primitives`]): execute a statement, or fetch
//!   its rows. Connecting and migrating are its own, in `sqlite/` and `postgres/`.
//! - A [`Statement`] is one text for both, written with `sql!`; the few words that differ (where a
//!   table is, how a row is locked) are parts of it that each wing spells in its own way. [`Value`]s
//!   go in, and [`Row`]s of them come out.
//! - [`Tx`] is what an algorithm works on: statements, and the time.
//! - [`SqlStore`] carries verbs out: in a task of their own, within a deadline, again where they
//!   collided with others, commit included.
//! - `token.rs`, `user.rs` …: a file per contract, with its statements, its rows and its verbs; `link.rs`
//!   has what users are mailed.
//!
//! A verb is added in three steps, once for both wings:
//!
//! 1. Its statements: `const FIND: Statement = sql!("SELECT … FROM " users " WHERE id = $1" lock);`
//! 2. Its algorithm: `async fn suspend(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<…>`. Lock first,
//!    in the order user, session, token; then read, in a statement of its own, and take the time; let
//!    a pure function of the room (`token::judge` …) decide, as the memory wing does; write. What is
//!    answered with `Ok` is committed, a refusal too; `Err` rolls back. What ends sessions calls
//!    `token::end_sessions`; what else others may remember is told by `tx.revoke(…)`.
//! 3. The method of the contract, which hands owned arguments over:
//!    `self.transact(id.clone(), |tx, id| Box::pin(suspend(tx, id))).await`; or `self.ask(…)` for what
//!    is a single statement, which needs no transaction.

mod api_key;
mod audit;
mod link;
mod migrations;
mod revocation;
mod second_factor;
mod statement;
mod store;
mod token;
mod user;
mod value;
mod verb;
mod wing;

pub(super) use migrations::{File as MigrationFile, run_missing};
#[cfg(feature = "postgres")]
pub(super) use revocation::CHANNEL;
pub(super) use statement::Statement;
pub(super) use store::SqlStore;
pub(super) use value::{Row, Value};
pub(super) use verb::store_error;
pub(super) use wing::{Meaning, Primitives, Wing, Work};
