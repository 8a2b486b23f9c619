//! What the API is, for programs (`/openapi.json`) and people (`/docs`), and a page to try it by hand
//! (`/`), which is a client like any other.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tower_warden::Problem;

use super::{
    App,
    error::{method_not_allowed, not_found},
    pages::is_wanted,
};

/// Its own script, style and API, and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub fn router() -> Router<App> {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || shown(kind, text)).fallback(method_not_allowed)
    };
    Router::new()
        .route("/", get(page).fallback(not_found))
        .route("/app.js", file("text/javascript; charset=utf-8", include_str!("try_it/app.js")))
        .route("/docs", file("text/html; charset=utf-8", include_str!("try_it/docs.html")))
        .route("/docs.js", file("text/javascript; charset=utf-8", include_str!("try_it/docs.js")))
        .route("/openapi.json", file("application/json", include_str!("openapi.json")))
        .route("/app.css", file("text/css; charset=utf-8", include_str!("try_it/app.css")))
}

/// For browsers; a program that asks here has lost its way.
async fn page(headers: HeaderMap) -> Response {
    if is_wanted(&headers) {
        return shown("text/html; charset=utf-8", include_str!("try_it/index.html"));
    }
    Problem::not_found().into_response()
}

fn shown(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::VARY, HeaderValue::from_static("accept")),
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
