//! Tokens of another issuer (Keycloak, Auth0, Entra, …): its keys are found by its own document, and
//! fetched again when they change. Here a small issuer stands in for it.
//!
//! Run it: `cargo run --example jwks --features axum,jwks`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use axum::{Json, Router, body::Body, routing::get};
use http::Request;
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, Require, RequireAuth, Role, TokenService, UserId,
    auth::JwksAuthenticator,
    store::memory::MemoryStore,
    token::{Algorithm, ClaimMapping, KeySet, SigningKey, TokenVerifier},
};

/// Publishes its document and its keys, and answers a service that signs tokens.
async fn issuer() -> Result<(String, TokenService), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let name = format!("http://{}", listener.local_addr()?);
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, &name, "shop-api", MemoryStore::new());
    let document = json!({"issuer": name, "jwks_uri": format!("{name}/keys")});
    let keys = json!(tokens.jwks());
    let app = Router::new()
        .route("/.well-known/openid-configuration", get(async || Json(document)))
        .route("/keys", get(async || Json(keys)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((name, tokens))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (name, theirs) = issuer().await?;

    // Ours: what their tokens must say, and what that means here.
    let verifier = TokenVerifier::new(&name, "shop-api")
        .with_algorithms([Algorithm::EdDsa])
        .with_mapping(ClaimMapping::new().with_roles_at(
            ["realm_access", "roles"],
            [("shop-admin", Role::ADMIN), ("shop-editor", Role::EDITOR)],
        ));
    let tokens = JwksAuthenticator::discover(verifier)?;
    tokens.refresh().await?; // At the start: a wrong address is found now.
    let app = Router::new()
        .route("/orders", get(async |caller: Identity| caller.role().to_string()))
        .layer(
            ServiceBuilder::new()
                .layer(RequireAuth::new(tokens))
                .layer(Require::scope("orders:read")),
        );

    for (scope, expected) in [("orders:read profile", 200), ("profile", 403)] {
        let mut claims = Map::new();
        claims.insert("scope".into(), scope.into());
        claims.insert("realm_access".into(), json!({"roles": ["offline", "shop-editor"]}));
        let ada = Identity::new(UserId::from("f3b1"), Role::VIEWER).with_claims(claims);
        let token = theirs.issue(&ada).await?;
        let bearer = format!("Bearer {}", token.access_token());
        let request = Request::get("/orders").header("authorization", bearer);
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096).await?;
        println!("{scope:?}: {status}: {}", String::from_utf8_lossy(&body));
        assert_eq!(status, expected);
    }
    Ok(())
}
