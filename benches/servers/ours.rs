//! The route behind tower-warden.

use std::time::Duration;

use axum::Router;
use tower::ServiceBuilder;
use tower_warden::{
    Quota, RateLimitLayer, RequireAuth,
    limit::{FallbackStore, RateLimitStore, Rule},
    store::{memory::MemoryRateLimitStore, redis::RedisRateLimitStore},
};

use super::{Outcome, tokens::token_service};

/// More than any user sends here.
pub(crate) const LIMIT: u32 = 100_000;

pub(crate) enum Cache {
    On,
    Off,
}

pub(crate) fn in_process(route: Router, cache: Cache) -> Router {
    let tokens = match cache {
        Cache::On => token_service(),
        Cache::Off => token_service().with_cache_capacity(0),
    };
    behind(route, RequireAuth::new(tokens), MemoryRateLimitStore::new(), Quota::per_minute(LIMIT))
}

pub(crate) fn without_limit(route: Router) -> Router {
    route.layer(RequireAuth::new(token_service()))
}

pub(crate) fn refusing(route: Router) -> Router {
    let quota = Quota::new(1, Duration::from_secs(60 * 60)).expect("a quota");
    behind(route, RequireAuth::new(token_service()), MemoryRateLimitStore::new(), quota)
}

pub(crate) async fn on_redis(route: Router, url: &str) -> Outcome<Router> {
    let store =
        FallbackStore::new(RedisRateLimitStore::connect(url).await?, MemoryRateLimitStore::new());
    Ok(behind(route, RequireAuth::new(token_service()), store, Quota::per_minute(LIMIT)))
}

fn behind(route: Router, auth: RequireAuth, store: impl RateLimitStore, quota: Quota) -> Router {
    let limit = RateLimitLayer::new(store, [Rule::per_user("user", quota)]);
    route.layer(ServiceBuilder::new().layer(auth).layer(limit))
}
