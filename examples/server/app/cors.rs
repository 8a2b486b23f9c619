//! Whose scripts may call, and what they may read.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Answers preflights before anything else does; nothing where no origin is allowed.
pub fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let exposed = [
        header::WWW_AUTHENTICATE,
        header::RETRY_AFTER,
        header::LOCATION,
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderName::from_static("x-ratelimit-reset"),
        HeaderName::from_static("ratelimit"),
        HeaderName::from_static("ratelimit-policy"),
    ];
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers(exposed)
        .max_age(std::time::Duration::from_secs(600));
    (!origins.is_empty()).then_some(layer)
}

/// Around a request, but for an `OPTIONS` that is no preflight: that is a request like any other, and
/// counted, where tower-http's layer would answer it.
pub async fn around(
    State(cors): State<Option<CorsLayer>>,
    request: Request,
    next: Next,
) -> Response {
    let is_plain = request.method() == Method::OPTIONS && !is_preflight(request.headers());
    let Some(cors) = cors.filter(|_| !is_plain) else { return next.run(request).await };
    let Ok(response) = cors.layer(next).oneshot(request).await;
    response
}

/// As <https://fetch.spec.whatwg.org/#cors-preflight-request> makes one.
fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
