//! The register, over the store in memory.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod login;
mod outdated;
mod registration;
mod support;
mod verification;
