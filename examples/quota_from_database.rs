//! Quotas that stand in a database: looked up by tenant, and remembered for half a minute.
//!
//! Run it: `cargo run --example quota_from_database --features axum,sqlite`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::Request;
use sqlx::SqlitePool;
use tower::ServiceExt;
use tower_warden::{
    Key, Quota, RateLimitLayer, Rule, StoreError, store::memory::MemoryRateLimitStore,
};

/// How many a minute this tenant has bought; `None` for one that isn't there.
async fn quota_of(database: SqlitePool, tenant: Key) -> Result<Option<Quota>, StoreError> {
    let Key::Text(tenant) = tenant else { return Ok(None) };
    let limit = sqlx::query_scalar("SELECT per_minute FROM tenants WHERE name = ?")
        .bind(&*tenant)
        .fetch_optional(&database)
        .await
        .map_err(StoreError::unavailable)?;
    Ok(limit.map(Quota::per_minute))
}

fn app(database: SqlitePool) -> Router {
    let rule = Rule::by_key("tenant", Quota::per_minute(1), |request| {
        request.headers.get("x-tenant")?.to_str().ok().map(Key::from)
    })
    .or_refuse() // who names no tenant has no limit to hold on to
    .with_quota_from(Duration::from_secs(30), move |tenant| quota_of(database.clone(), tenant));
    let limit = RateLimitLayer::new(MemoryRateLimitStore::new(), rule);
    Router::new().route("/", get("hello")).layer(limit)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = SqlitePool::connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE tenants (name TEXT PRIMARY KEY, per_minute INTEGER NOT NULL)")
        .execute(&database)
        .await?;
    sqlx::query("INSERT INTO tenants VALUES ('acme', 1000), ('tiny', 2)")
        .execute(&database)
        .await?;
    let app = app(database);

    for (tenant, expected) in [
        ("acme", [200, 200, 200]),
        ("tiny", [200, 200, 429]),
        ("unknown", [200, 429, 429]), // the rule's own quota
    ] {
        for status in expected {
            let request = Request::get("/").header("x-tenant", tenant).body(Body::empty())?;
            let response = app.clone().oneshot(request).await?;
            let limit = response.headers()["x-ratelimit-limit"].to_str()?;
            println!("{tenant}: {} of {limit}", response.status());
            assert_eq!(response.status(), status);
        }
    }
    let nobody = app.oneshot(Request::get("/").body(Body::empty())?).await?;
    assert_eq!(nobody.status(), 400);
    Ok(())
}
