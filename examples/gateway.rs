//! A gateway that only verifies: it has the issuer's public keys and no store, refuses what isn't
//! genuine, and tells the services behind it who is calling.
//!
//! Run it: `cargo run --example gateway --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use axum::{Router, body::Body, routing::any};
use http::{HeaderValue, Request};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, RequireAuth, Role, TokenService, UserId,
    store::memory::MemoryStore,
    token::{Algorithm, Jwks, KeySet, SigningKey, TokenVerifier},
};

/// What the services behind believe: set here, whatever the client sent.
fn tell_who(mut request: Request<Body>) -> Request<Body> {
    let caller = request.extensions().get::<Identity>().cloned();
    let id = caller.and_then(|caller| HeaderValue::from_str(caller.user_id().as_str()).ok());
    let headers = request.headers_mut();
    headers.remove("authorization");
    headers.remove("x-user-id");
    if let Some(id) = id {
        headers.insert("x-user-id", id);
    }
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The issuer, somewhere else. It publishes its keys.
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let issuer = TokenService::new(keys, "https://id.example", "shop", MemoryStore::new());
    let published = serde_json::to_string(&issuer.jwks())?;

    // The gateway. With the feature `jwks` it may fetch them, and notice when they change.
    let jwks: Jwks = serde_json::from_str(&published)?;
    let verifier = TokenVerifier::new("https://id.example", "shop")
        .with_algorithms([Algorithm::EdDsa])
        .with_jwks(&jwks);
    let behind = any(async |request: Request<Body>| {
        format!("the service sees {:?}", request.headers().get("x-user-id"))
    });
    let gateway = Router::new().fallback(behind).layer(
        ServiceBuilder::new().layer(RequireAuth::new(verifier.clone())).map_request(tell_who),
    );

    let ada = Identity::new(UserId::from("ada"), Role::VIEWER);
    let pair = issuer.issue(&ada).await?;
    for (token, expected) in [
        (pair.access_token(), r#"the service sees Some("ada")"#),
        ("forged", r#""code":"invalid_token""#),
    ] {
        let request = Request::get("/")
            .header("authorization", format!("Bearer {token}"))
            .header("x-user-id", "the admin");
        let response = gateway.clone().oneshot(request.body(Body::empty())?).await?;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1024).await?;
        let said = String::from_utf8_lossy(&body);
        println!("{status}: {said}");
        assert!(said.contains(expected));
    }

    // The issuer has other keys now; so has the gateway, and the old token is worth nothing.
    let other = KeySet::new(SigningKey::generate_ed25519()?);
    verifier.set_jwks(&other.jwks());
    let refused = verifier.verify(pair.access_token()).expect_err("its key is gone");
    println!("{refused}");
    Ok(())
}
