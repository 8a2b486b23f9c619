//! Who pays more may ask more often: quotas by the plan that a token says, and admins without limit.
//!
//! Run it: `cargo run --example per_plan --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use axum::{Router, body::Body, routing::get};
use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, Plan, Quota, RateLimitLayer, RequireAuth, Role, Rule, TokenService, UserId,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey},
};

fn app(tokens: &TokenService) -> Router {
    let per_plan = Rule::per_user("user", Quota::per_minute(60)) // without a plan
        .with_plan(Plan::FREE, Quota::per_minute(3))
        .with_plan(Plan::PAID, Quota::per_minute(600))
        .exempt_role(Role::ADMIN);
    // From the outside in: who is it, how often.
    let stack = ServiceBuilder::new()
        .layer(RequireAuth::new(tokens.clone()))
        .layer(RateLimitLayer::new(MemoryRateLimitStore::new(), per_plan));
    Router::new().route("/report", get("42")).layer(stack)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
    let app = app(&tokens);

    let free = Identity::new(UserId::random(), Role::VIEWER).with_plan(Plan::FREE);
    let paid = Identity::new(UserId::random(), Role::VIEWER).with_plan(Plan::PAID);
    let admin = Identity::new(UserId::random(), Role::ADMIN);
    for (name, caller, expected) in
        [("free", free, [200, 200, 200, 429]), ("paid", paid, [200; 4]), ("admin", admin, [200; 4])]
    {
        let token = tokens.issue(&caller).await?;
        for status in expected {
            let request = Request::get("/report")
                .header("authorization", format!("Bearer {}", token.access_token()));
            let response = app.clone().oneshot(request.body(Body::empty())?).await?;
            println!("{name}: {} {}", response.status(), limit(&response));
            assert_eq!(response.status(), status);
        }
    }
    let stranger = app.oneshot(Request::get("/report").body(Body::empty())?).await?;
    assert_eq!(stranger.status(), 401);
    Ok(())
}

fn limit(response: &Response<Body>) -> &str {
    let limit = response.headers().get("ratelimit").and_then(|value| value.to_str().ok());
    limit.unwrap_or("not limited")
}
