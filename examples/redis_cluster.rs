//! One limit for several servers, in Redis Cluster (or one Redis, or behind Sentinel: the URL says which),
//! and what counts while it is out of reach.
//!
//! Run it with the addresses of some nodes, of which the others are learnt:
//! `REDIS_URL=redis://10.0.0.5:6379,redis://10.0.0.6:6379 cargo run --example redis_cluster --features axum,redis`.
//! Where nobody answers it runs too: each server then counts for itself, by its share of the limit.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error, num::NonZeroU32};

use axum::{Extension, Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, Quota, RateLimitLayer, Role, Rule, UserId,
    limit::FallbackStore,
    store::{memory::MemoryRateLimitStore, redis::RedisRateLimitStore},
};

const REPLICAS: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// A server of several, with connections and a memory of its own.
async fn server(urls: &str, caller: &Identity) -> Result<Router, Box<dyn Error>> {
    let redis = RedisRateLimitStore::connect(urls).await?.with_prefix("example");
    // No request waits for Redis longer than 25 ms; while it is gone, each of the replicas grants its share.
    let store = FallbackStore::new(redis, MemoryRateLimitStore::new())
        .with_local_outages()
        .with_replicas(REPLICAS);
    let limit = RateLimitLayer::new(store, Rule::per_user("user", Quota::per_minute(4)));
    // In place of `RequireAuth`, for the example's sake.
    let stack = ServiceBuilder::new().layer(Extension(caller.clone())).layer(limit);
    Ok(Router::new().route("/", get("hello")).layer(stack))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls = env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:7000".into());
    let caller = Identity::new(UserId::random(), Role::VIEWER);
    let servers = [server(&urls, &caller).await?, server(&urls, &caller).await?];

    let mut last = StatusCode::OK;
    for (n, server) in servers.iter().cycle().take(12).enumerate() {
        let response = server.clone().oneshot(Request::get("/").body(Body::empty())?).await?;
        last = response.status();
        println!("server {}: {last}, {:?}", n % 2, response.headers().get("ratelimit"));
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    Ok(())
}
