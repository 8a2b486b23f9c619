//! The layers around services, without I/O but for one server on loopback.

#![allow(clippy::unwrap_used, reason = "the lint knows only functions that are tests themselves")]

mod bodies;
mod charge;
mod cookies;
mod events;
mod grpc;
mod jwks;
mod limiter;
mod nested;
mod observe;
mod plain_tower;
mod rate_limit;
mod readiness;
mod require_auth;
mod require_role;
mod rules;
mod store_failure;
mod support;
mod types;
