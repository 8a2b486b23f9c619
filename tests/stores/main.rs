//! The contract of each store, written once and run over every wing; and what only a database can
//! get wrong.

#![allow(clippy::unwrap_used, reason = "the lint knows only functions that are tests themselves")]
#![allow(clippy::print_stdout, reason = "what was measured is told with --nocapture")]

mod account;
mod api_key;
mod audit;
mod limit;
mod second_factor;
mod token;
mod user;

#[cfg(feature = "postgres")]
#[path = "../support/pgbouncer.rs"]
mod pgbouncer;
#[cfg(feature = "postgres")]
mod pooler;
#[cfg(any(feature = "postgres", feature = "redis"))]
#[path = "../support/ports.rs"]
mod ports;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod upgrade;
