//! Guides: how to do what, step by step. Text only.
//!
//! - [`client_addresses`]: behind nginx, HAProxy, Caddy, load balancers, and none.
//! - [`order_of_layers`]: what stands around what, and why.
//! - [`plans_and_quotas`]: limits by plan, by weight, of failures only.
//! - [`bursts`]: for who comes from token buckets.
//! - [`browsers`]: tokens, CORS, WebSocket, EventSource.
//! - [`testing`]: without sockets and without sleeping.
//! - [`coming_from`]: tower_governor, axum-login, jsonwebtoken, jwt-authorizer, express-rate-limit, passport.

#[doc = include_str!("client_addresses.md")]
pub mod client_addresses {}

#[doc = include_str!("order_of_layers.md")]
pub mod order_of_layers {}

#[doc = include_str!("plans_and_quotas.md")]
pub mod plans_and_quotas {}

#[doc = include_str!("bursts.md")]
pub mod bursts {}

#[doc = include_str!("browsers.md")]
pub mod browsers {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}
