//! The contracts of the stores, each written once and run over every wing.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod user;
