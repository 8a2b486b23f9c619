//! What every answer tells browsers: neither to guess what it is, nor to frame it, nor to tell
//! others where they were.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};

/// For answers that are no pages: nothing in them is ever run or shown as one.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Two years, as the preload lists ask for.
const ONLY_HTTPS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// What is added to each answer that doesn't say it of itself.
#[derive(Clone, Copy, Debug)]
pub struct Hardening {
    https: bool,
}

impl Hardening {
    /// Over HTTPS, browsers are also told to ask in no other way again.
    pub fn new(https: bool) -> Self {
        Self { https }
    }

    pub fn harden(self, headers: &mut HeaderMap) {
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CONTENT_SECURITY_POLICY, NO_PAGE),
        ] {
            headers.entry(name).or_insert(value);
        }
        if self.https {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_HTTPS);
        }
    }

    pub fn response(self, mut response: Response) -> Response {
        self.harden(response.headers_mut());
        response
    }
}
