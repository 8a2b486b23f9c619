//! Moving from tokens that were signed with a shared secret (jsonwebtoken's `HS256`, say): new tokens
//! are signed with a key, old ones are good until a date, and nobody is logged out.
//!
//! Run it: `cargo run --example hs256_bridge --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Body, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::Request;
use tower::ServiceExt;
use tower_warden::{
    Identity, RequireAuth, Role, TokenService, UserId,
    auth::FirstOf,
    store::memory::MemoryStore,
    token::{ClaimMapping, Hs256Bridge, KeySet, SigningKey},
};

const SECRET: &[u8] = b"from the environment of the old app";

/// As the old app signed them.
fn old_token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = format!(r#"{{"sub":"{user}","is":"staff","iat":{now},"exp":{}}}"#, now + 3600);
    let header = BASE64URL.encode(r#"{"typ":"JWT","alg":"HS256"}"#);
    let signed = format!("{header}.{}", BASE64URL.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(tag))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
    // Longer than the longest that an old token lives; then this is removed.
    let until = SystemTime::now() + Duration::from_secs(7 * 24 * 60 * 60);
    let old = Hs256Bridge::new(SECRET, until)?.with_mapping(
        ClaimMapping::new().with_roles_at(["is"], [("staff", Role::EDITOR), ("boss", Role::ADMIN)]),
    );
    let app = Router::new()
        .route(
            "/",
            get(async |caller: Identity| format!("{}, {}", caller.user_id(), caller.role())),
        )
        .layer(RequireAuth::new(FirstOf::new().or(tokens.clone()).or(old)));

    let ada = Identity::new(UserId::from("ada"), Role::ADMIN);
    let new = tokens.issue(&ada).await?;
    let forged = format!("{}x", &old_token("eve")[..100]);
    for (case, token, status) in [
        ("new", new.access_token(), 200),
        ("old", &old_token("bob"), 200),
        ("forged", &forged, 401),
    ] {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        println!("{case}: {}", response.status());
        assert_eq!(response.status(), status);
    }
    Ok(())
}
