//! What anyone may ask, and no database is needed for.

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::header;
use serde_json::{Value, json};
use tower_warden::TokenService;

use super::{App, error::method_not_allowed};

pub fn router() -> Router<App> {
    Router::new()
        .route("/public/status", get(status).fallback(method_not_allowed))
        .route("/.well-known/jwks.json", get(public_keys).fallback(method_not_allowed))
}

async fn status() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn public_keys(State(tokens): State<TokenService>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(tokens.jwks()))
}
