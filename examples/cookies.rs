//! Sessions of browsers in cookies that scripts can't read: login, refresh, logout, and what another
//! site's page gets.
//!
//! Run it: `cargo run --example cookies --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::SET_COOKIE},
    response::{AppendHeaders, IntoResponse},
    routing::{get, post},
};
use tower::ServiceExt;
use tower_http::csrf::CsrfLayer;
use tower_warden::{
    Identity, Problem, RequestHead, RequireAuth, Role, TokenService, UserId,
    auth::{FirstOf, SessionCookies},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey},
};

#[derive(Clone)]
struct App {
    tokens: TokenService,
    cookies: SessionCookies,
}

fn set(cookies: Vec<HeaderValue>) -> impl IntoResponse {
    (StatusCode::NO_CONTENT, AppendHeaders(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie))))
}

/// The password was right: that is not this example's idea.
async fn login(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let pair = app.tokens.issue(&ada()).await?;
    Ok(set(app.cookies.set(&pair)?))
}

async fn refresh(State(app): State<App>, request: Request) -> Result<impl IntoResponse, Problem> {
    let token = app.cookies.refresh_token(&RequestHead::from(&request))?.to_owned();
    let pair = app.tokens.refresh(&token, async |_| Ok(Some(ada()))).await?;
    Ok(set(app.cookies.set(&pair)?))
}

async fn logout(State(app): State<App>, request: Request) -> Result<impl IntoResponse, Problem> {
    let token = app.cookies.refresh_token(&RequestHead::from(&request))?.to_owned();
    app.tokens.logout(&token).await?;
    Ok(set(app.cookies.clear()))
}

fn ada() -> Identity {
    Identity::new(UserId::from("ada"), Role::EDITOR).with_amr(["pwd"])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
    let cookies = SessionCookies::new();
    // Browsers come with cookies, other clients with Bearer tokens.
    let auth = FirstOf::new().or(tokens.clone()).or(cookies.of(tokens.clone()));
    let app = Router::new()
        .route("/me", get(async |caller: Identity| caller.user_id().to_string()))
        .layer(RequireAuth::new(auth))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .route("/logout", post(logout))
        .layer(CsrfLayer::new()) // Nobody is logged in by another site's form.
        .with_state(App { tokens, cookies });

    let mut jar = String::new();
    for (method, path, site, status) in [
        ("POST", "/login", "cross-site", 403),
        ("POST", "/login", "same-origin", 204),
        ("GET", "/me", "same-origin", 200),
        ("GET", "/me", "cross-site", 403),
        ("POST", "/refresh", "same-origin", 204),
        ("POST", "/logout", "same-origin", 204),
        ("GET", "/me", "same-origin", 401),
    ] {
        let request = Request::builder().method(method).uri(path).header("sec-fetch-site", site);
        let request = request.header("cookie", &jar).body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let set = response.headers().get_all(SET_COOKIE).iter();
        let set: Vec<_> = set.filter_map(|set| set.to_str().ok()?.split(';').next()).collect();
        if !set.is_empty() {
            jar = set.join("; "); // As a browser keeps them.
        }
        println!("{method} {path}, {site}: {}", response.status());
        assert_eq!(response.status(), status);
    }
    Ok(())
}
