//! An app that came from tower_governor, with tokens that it goes on making by jsonwebtoken and a shared
//! secret. What it was:
//!
//! ```text
//! let config = GovernorConfigBuilder::default()
//!     .key_extractor(SmartIpKeyExtractor)
//!     .per_millisecond(600).burst_size(100).use_headers().finish().unwrap();
//! app.layer(GovernorLayer::new(config))   // and an extractor that decoded the token in each handler
//! ```
//!
//! Run it: `cargo run --example from_tower_governor --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use axum::{Router, body::Body, routing::get};
use http::Request;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
};
use serde::{Deserialize, Serialize};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Answer, Identity, PeerAddr, Quota, RateLimitLayer, RequestHead, RequireAuth, Role, Rule,
    UserId,
    auth::{AuthError, Authenticate, bearer},
    store::memory::MemoryRateLimitStore,
};

const SECRET: &[u8] = b"an old secret of 32 random bytes";

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: String,
    exp: u64,
}

/// The tokens as they are.
#[derive(Clone, Debug)]
struct OldTokens;

impl Authenticate for OldTokens {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let token = match bearer(request.headers) {
            Ok(token) => token,
            Err(error) => return Answer::Ready(Err(error)),
        };
        let key = DecodingKey::from_secret(SECRET);
        let claims = decode::<Claims>(token, &key, &Validation::new(Algorithm::HS256));
        let identity = claims.map(|token| {
            Identity::new(
                UserId::from(token.claims.sub.as_str()),
                Role::from(token.claims.role.as_str()),
            )
        });
        Answer::Ready(identity.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => AuthError::Expired,
            _ => AuthError::Invalid("not a token of ours"),
        }))
    }
}

fn app() -> Router {
    // A bucket of 100 that fills in a minute let 199 through in one; this is 100 in any minute.
    // By the address of the connection; headers are believed from proxies that `.behind(…)` names.
    let limit = RateLimitLayer::new(
        MemoryRateLimitStore::new(),
        [
            Rule::per_user("user", Quota::per_minute(100)),
            Rule::per_ip("ip", Quota::per_minute(3)).when(|request| request.identity().is_none()),
        ],
    );
    let auth = RequireAuth::new(OldTokens);
    let stack = ServiceBuilder::new().layer(auth.identify_only()).layer(limit).layer(auth);
    Router::new()
        .route("/me", get(async |caller: Identity| format!("hello {}", caller.user_id())))
        .layer(stack)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let claims = Claims { sub: "ada".into(), role: "editor".into(), exp: 4_102_444_800 };
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))?;
    let app = app();
    for (sent, expected) in [
        (token.as_str(), [200; 4]),
        ("made.up.token", [401, 401, 401, 429]), // who guesses tokens is limited as well
    ] {
        for status in expected {
            let request = Request::get("/me")
                .extension(PeerAddr::from(([203, 0, 113, 9], 4711)))
                .header("authorization", format!("Bearer {sent}"));
            let response = app.clone().oneshot(request.body(Body::empty())?).await?;
            let limit = response.headers()["ratelimit"].to_str()?;
            println!("{} {limit}", response.status());
            assert_eq!(response.status(), status);
        }
    }
    Ok(())
}
