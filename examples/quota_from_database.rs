//! Quotas that stand in a database: looked up by tenant, and remembered for half a minute.
//!
//! Run it: `cargo run --example quota_from_database --features axum,sqlite`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::Request;
use sqlx::SqlitePool;
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, Key, Quota, RateLimitLayer, RequireAuth, Role, Rule, StoreError, TokenService,
    UserId,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey, TokenPair},
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

fn app(database: SqlitePool, tokens: TokenService) -> Router {
    // From a token that was verified: a tenant that anyone may write would be a limit for nobody, and a
    // query for each name that somebody makes up.
    let rule = Rule::by_key("tenant", Quota::per_minute(1), |request| {
        request.identity()?.claims().get("tenant")?.as_str().map(Key::from)
    })
    .or_refuse() // who is of no tenant has no limit to hold on to
    .with_quota_from(Duration::from_secs(30), move |tenant| quota_of(database.clone(), tenant));
    let limit = RateLimitLayer::new(MemoryRateLimitStore::new(), rule);
    let stack = ServiceBuilder::new().layer(RequireAuth::new(tokens)).layer(limit);
    Router::new().route("/", get("hello")).layer(stack)
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
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
    let app = app(database, tokens.clone());
    let ada = Identity::new(UserId::from("ada"), Role::EDITOR);

    for (tenant, expected) in [
        ("acme", [200, 200, 200]),
        ("tiny", [200, 200, 429]),
        ("unknown", [200, 429, 429]), // the rule's own quota
    ] {
        let caller = tokens.issue(&ada.clone().with_claim("tenant", tenant)).await?;
        for status in expected {
            let response = app.clone().oneshot(request_of(&caller)?).await?;
            let limit = response.headers()["x-ratelimit-limit"].to_str()?;
            println!("{tenant}: {} of {limit}", response.status());
            assert_eq!(response.status(), status);
        }
    }
    let of_no_tenant = tokens.issue(&ada).await?;
    assert_eq!(app.oneshot(request_of(&of_no_tenant)?).await?.status(), 400);
    Ok(())
}

fn request_of(caller: &TokenPair) -> http::Result<Request<Body>> {
    let bearer = format!("Bearer {}", caller.access_token());
    Request::get("/").header("authorization", bearer).body(Body::empty())
}
