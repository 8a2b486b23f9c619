//! Callers known by an authenticator of your own: here opaque tokens that another service is asked
//! about (RFC 7662), with its answers remembered for a while.
//!
//! Run it: `cargo run --example foreign_tokens --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use http::Request;
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Answer, Identity, RequestHead, RequireAuth, RequireRole, Role, StoreError, TokenHash, UserId,
    auth::{AuthError, Authenticate, bearer},
};

/// Asks the service that issued a token what it is worth.
#[derive(Clone, Debug, Default)]
struct Introspection {
    known: Arc<Mutex<Known>>,
}

/// Which tokens were asked about, and when; a real one would be bounded. By their hashes: what lies in
/// memory, or comes into a log by `Debug`, lets nobody in.
type Known = HashMap<TokenHash, (Instant, Identity)>;

impl Authenticate for Introspection {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let token = match bearer(request.headers).map(std::str::from_utf8) {
            Ok(Ok(token)) => token.to_owned(),
            Ok(Err(_)) => return Answer::Ready(Err(AuthError::Invalid("no text"))),
            Err(error) => return Answer::Ready(Err(error)),
        };
        let hash = TokenHash::of(&token);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        if let Some((at, caller)) = known
            && at.elapsed() < Duration::from_secs(30)
        {
            return Answer::Ready(Ok(caller)); // At once, without a future.
        }
        let known = Arc::clone(&self.known);
        Answer::pending(async move {
            let caller = ask(&token).await?;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(hash, (Instant::now(), caller.clone()));
            Ok(caller)
        })
    }
}

/// Stands for the call to the other service.
async fn ask(token: &str) -> Result<Identity, AuthError> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    match token {
        "of-ada" => Ok(Identity::new(UserId::from("ada"), Role::EDITOR)),
        "of-bob" => Ok(Identity::new(UserId::from("bob"), Role::VIEWER)),
        "during-an-outage" => Err(StoreError::unavailable("no answer").into()), // 503, not 401
        _ => Err(AuthError::Invalid("inactive")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/", get(async |caller: Identity| format!("hello {}", caller.user_id())))
        .layer(
            ServiceBuilder::new()
                .layer(RequireAuth::new(Introspection::default()))
                .layer(RequireRole::any_of([Role::EDITOR])),
        );
    for (token, status) in [
        ("of-ada", 200),
        ("of-ada", 200),
        ("of-bob", 403),
        ("made-up", 401),
        ("during-an-outage", 503),
    ] {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        println!("{token}: {}", response.status());
        assert_eq!(response.status(), status);
    }
    Ok(())
}
