//! The Redis that `tests/run` starts.

#![allow(dead_code, reason = "each suite needs a part of it")]

use std::sync::atomic::{AtomicU32, Ordering};

use deadpool_redis::redis::{Client, aio::MultiplexedConnection, cmd};

/// The server's URL.
pub(crate) fn url() -> String {
    variable("PORTCULLIS_TEST_REDIS")
}

/// The URLs of a cluster's nodes.
pub(crate) fn cluster_urls() -> String {
    variable("PORTCULLIS_TEST_REDIS_CLUSTER")
}

/// Where `redis-server` is.
pub(crate) fn server_binary() -> String {
    variable("PORTCULLIS_TEST_REDIS_SERVER")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection of the test's own, to look and to interfere.
pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// The keys that begin so.
pub(crate) async fn keys(connection: &mut MultiplexedConnection, prefix: &str) -> Vec<String> {
    cmd("KEYS").arg(format!("{prefix}:*")).query_async(connection).await.unwrap()
}

/// How long a key will live, in milliseconds; -1 for ever, -2 it is not there.
pub(crate) async fn pttl(connection: &mut MultiplexedConnection, key: &str) -> i64 {
    cmd("PTTL").arg(key).query_async(connection).await.unwrap()
}
