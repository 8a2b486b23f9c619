//! Guides: how to do what, step by step. Text only.
//!
//! - [`client_addresses`]: behind nginx, HAProxy, Caddy, load balancers, and none.

#[doc = include_str!("client_addresses.md")]
pub mod client_addresses {}
