//! What every answer tells browsers: neither to guess what it is, nor to frame it, nor to tell
//! others where they were.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};

/// For answers that are no pages: nothing in them is ever run or shown as one.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Two years, as the preload lists ask for.
const ONLY_HTTPS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Adds what an answer doesn't say of itself.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, NO_PAGE),
    ] {
        headers.entry(name).or_insert(value);
    }
}

/// The same for each answer; over HTTPS, also to ask in no other way again.
pub fn headers(https: bool) -> impl Fn(Response) -> Response + Clone {
    move |mut response| {
        harden(response.headers_mut());
        if https {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, ONLY_HTTPS);
        }
        response
    }
}
