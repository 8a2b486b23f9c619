//! The contracts of the stores, over every wing.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to panic")]

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
