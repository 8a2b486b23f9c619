//! API keys: a person makes one, a machine comes in with it, as far as keys may, until it is revoked.
//!
//! Run it: `cargo run --example api_keys --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::SystemTime;

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    ApiKeyService, Identity, Quota, RateLimitLayer, Require, RequireAuth, Role, Rule, TokenService,
    api_key::{ApiKeyId, KeyRequest},
    auth::FirstOf,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey},
    user::{Email, NewUser, PasswordHash, UserStore},
};

fn app(keys: ApiKeyService, tokens: TokenService) -> Router {
    // Machines come with keys, people with access tokens.
    let auth = RequireAuth::new(FirstOf::new().or(keys).or(tokens));
    // A key counts for its owner; each key for itself as well.
    let limits = RateLimitLayer::new(
        MemoryRateLimitStore::new(),
        [
            Rule::per_user("user", Quota::per_minute(300)),
            Rule::by("key", |request| {
                let key = ApiKeyId::of(request.identity()?)?;
                Some((key.as_str().into(), Quota::per_minute(60)))
            }),
        ],
    );
    let in_person = Require::that(|caller| ApiKeyId::of(caller).is_none());
    Router::new()
        .route("/projects", get(async || "projects\n"))
        .route("/account", get(async || "account\n").route_layer(in_person))
        .layer(ServiceBuilder::new().layer(auth).layer(limits))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let ada = add_user(&store).await?;
    let keys = ApiKeyService::new(store.clone()).with_prefix("acme_");
    let signing = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(signing, "https://id.example", "api", store);
    let app = app(keys.clone(), tokens.clone());
    let ask = async |path: &str, token: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        println!("{path} by {}…: {}", &token[..6], response.status());
        Ok::<_, Box<dyn std::error::Error>>(response.status())
    };

    let session = tokens.issue(&ada).await?;
    assert_eq!(ask("/account", session.access_token()).await?, StatusCode::OK);

    let (key, secret) =
        keys.create(&ada, KeyRequest::new("nightly import").with_role(Role::VIEWER)).await?;
    println!("a key that is shown once: {}; later only {}…", secret.expose(), key.prefix);
    assert_eq!(ask("/projects", secret.expose()).await?, StatusCode::OK);
    assert_eq!(ask("/account", secret.expose()).await?, StatusCode::FORBIDDEN);

    keys.revoke(ada.user_id(), &key.id).await?;
    assert_eq!(ask("/projects", secret.expose()).await?, StatusCode::UNAUTHORIZED);
    Ok(())
}

/// Somebody who has registered and logged in: see the example `server`.
async fn add_user(store: &MemoryStore) -> Result<Identity, Box<dyn std::error::Error>> {
    let email = Email::parse("ada@example.com")?;
    let hash = PasswordHash::from("$2b$12$…".to_owned());
    let mut user = NewUser::new(email, hash, SystemTime::now());
    user.role = Role::EDITOR;
    Ok(Identity::from(&store.create(user).await?))
}
