//! The contract of each store, written once and run over every wing.

#![allow(clippy::unwrap_used, reason = "the lint knows only functions that are tests themselves")]

mod token;
mod user;
