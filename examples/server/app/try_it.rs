//! The page at `/`, to try the API by hand. It is a client like any other.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, header};

use super::{App, error::method_not_allowed};

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
        .route("/", file("text/html; charset=utf-8", include_str!("try_it/index.html")))
        .route("/app.js", file("text/javascript; charset=utf-8", include_str!("try_it/app.js")))
        .route("/app.css", file("text/css; charset=utf-8", include_str!("try_it/app.css")))
}

fn shown(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
