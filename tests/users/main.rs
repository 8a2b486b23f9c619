//! The register, over the store in memory.

mod login;
mod registration;
mod support;
mod verification;
