//! Tests of an app that stands behind the layers: without a socket, without sleeping.
//!
//! Run it: `cargo run --example testing --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::connect_info::MockConnectInfo, routing::get};
use http::{Request, StatusCode};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, ManualClock, Quota, RateLimitLayer, RequireAuth, Role, Rule, TokenService, UserId,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey},
};

/// The app, as the program builds it: what it stands on is handed in.
fn app(tokens: TokenService, limits: MemoryRateLimitStore) -> Router {
    let auth = RequireAuth::new(tokens);
    let users = Rule::per_user("user", Quota::per_minute(2));
    let strangers =
        Rule::per_ip("ip", Quota::per_minute(1)).when(|request| request.identity().is_none());
    let stack = ServiceBuilder::new()
        .layer(auth.identify_only())
        .layer(RateLimitLayer::new(limits, [users, strangers]))
        .layer(auth);
    Router::new()
        .route("/hello", get(async |caller: Identity| caller.user_id().to_string()))
        .layer(stack)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Stores in memory, and a clock that the test moves.
    let clock = ManualClock::new();
    let shared: Arc<ManualClock> = Arc::new(clock.clone());
    let limits = MemoryRateLimitStore::new().with_clock(shared.clone());
    let accounts = MemoryStore::new().with_clock(shared); // services take it from their store
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "test", "test", accounts);

    // A caller needs no login here: the test signs what it needs.
    let ada = Identity::new(UserId::from("ada"), Role::EDITOR);
    let bearer = format!("Bearer {}", tokens.issue(&ada).await?.access_token());

    // Requests have no connection, so one is made up for all.
    let peer = std::net::SocketAddr::from(([203, 0, 113, 9], 4711));
    let app = app(tokens, limits).layer(MockConnectInfo(peer));
    let ask = async |token: Option<&str>| {
        let request = Request::get("/hello");
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        let request = request.body(Body::empty()).expect("a request");
        app.clone().oneshot(request).await.map(|answer| answer.status())
    };

    assert_eq!(ask(None).await?, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(None).await?, StatusCode::TOO_MANY_REQUESTS);
    for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(ask(Some(&bearer)).await?, status);
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(ask(Some(&bearer)).await?, StatusCode::OK);
    clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(ask(Some(&bearer)).await?, StatusCode::UNAUTHORIZED);
    println!("all as expected");
    Ok(())
}
