//! The route behind tower-warden.

use std::time::Duration;

use axum::Router;
use tower::ServiceBuilder;
use tower_warden::{
    Quota, RateLimitLayer, RequireAuth,
    limit::{FallbackStore, LimitHeaders, RateLimitStore, Rule},
    store::{memory::MemoryRateLimitStore, redis::RedisRateLimitStore},
};

use super::{Outcome, tokens::token_service};

/// More than any user sends here.
pub(crate) const LIMIT: u32 = 100_000;

pub(crate) fn with_headers(route: Router, headers: LimitHeaders) -> Router {
    let quota = Quota::per_minute(LIMIT);
    let auth = RequireAuth::new(token_service());
    behind(route, auth, MemoryRateLimitStore::new(), quota, headers)
}

/// For one user, who asks more often than any.
pub(crate) fn without_end(route: Router) -> Router {
    let auth = RequireAuth::new(token_service());
    let (store, quota) = (MemoryRateLimitStore::new(), Quota::per_minute(u32::MAX));
    behind(route, auth, store, quota, LimitHeaders::None)
}

pub(crate) fn without_cache(route: Router) -> Router {
    let auth = RequireAuth::new(token_service().with_cache_capacity(0));
    let (store, quota) = (MemoryRateLimitStore::new(), Quota::per_minute(LIMIT));
    behind(route, auth, store, quota, LimitHeaders::Both)
}

pub(crate) fn without_limit(route: Router) -> Router {
    route.layer(RequireAuth::new(token_service()))
}

pub(crate) fn refusing(route: Router) -> Router {
    let quota = Quota::new(1, Duration::from_secs(60 * 60)).expect("a quota");
    behind(
        route,
        RequireAuth::new(token_service()),
        MemoryRateLimitStore::new(),
        quota,
        LimitHeaders::Both,
    )
}

pub(crate) async fn on_redis(route: Router, url: &str) -> Outcome<Router> {
    let store =
        FallbackStore::new(RedisRateLimitStore::connect(url).await?, MemoryRateLimitStore::new());
    Ok(behind(
        route,
        RequireAuth::new(token_service()),
        store,
        Quota::per_minute(LIMIT),
        LimitHeaders::Both,
    ))
}

fn behind(
    route: Router,
    auth: RequireAuth,
    store: impl RateLimitStore,
    quota: Quota,
    headers: LimitHeaders,
) -> Router {
    let rule = Rule::per_user("user", quota);
    let limit = RateLimitLayer::new(store, rule).with_headers(headers);
    route.layer(ServiceBuilder::new().layer(auth).layer(limit))
}
