//! What the example server promises in production: several processes on one PostgreSQL and one
//! Redis, clients that hang up, backends that hang or go.
//!
//! The clocks of the servers don't matter to limits in Redis. That is not tested here: a process
//! can't be given another clock without help. The script takes Redis's `TIME`, and `tests/stores`
//! sees that it does.

#![cfg(all(feature = "postgres", feature = "redis"))]
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(clippy::print_stdout, reason = "what was measured is told with --nocapture")]

mod api;
mod calls;
mod hang_ups;
mod keys;
mod metrics;
mod monitoring;
#[path = "../support/pgbouncer.rs"]
mod pgbouncer;
#[path = "../support/ports.rs"]
mod ports;
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
mod redis;
#[path = "../support/redis.rs"]
mod redis_server;
mod replicas;
mod revocations;
mod scene;
mod sessions;
