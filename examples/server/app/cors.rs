//! Whose scripts may call, and what they may read.

use http::{HeaderName, HeaderValue, Method, header};
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
