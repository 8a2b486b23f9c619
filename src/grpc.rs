//! What gRPC clients are told: refusals as trailers without a message (the gRPC protocol over HTTP/2,
//! "Trailers-Only").

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

/// A status code of gRPC.
///
/// ```
/// use tower_warden::{Quota, Rule, grpc::Code, limit::Charge};
/// // Failed logins, whether they came over HTTP or over gRPC.
/// let failed = Charge::status(http::StatusCode::UNAUTHORIZED)
///     .or(Charge::grpc_status(Code::UNAUTHENTICATED));
/// let rule = Rule::per_ip("login", Quota::per_minute(5)).charging(failed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(u32);

impl Code {
    /// It went well.
    pub const OK: Self = Self(0);
    /// Nothing is known of what went wrong: also where no status came at all.
    pub const UNKNOWN: Self = Self(2);
    /// What was asked can't be right.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// It took too long.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(5);
    /// There is such a thing already.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// The caller is known, and may not.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Too many requests.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// There is no such method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The server's own fault.
    pub const INTERNAL: Self = Self(13);
    /// Trying again may help.
    pub const UNAVAILABLE: Self = Self(14);
    /// The caller is not known.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The code of this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number of the code.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What gRPC has for a response of this status.
    pub(crate) fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::OK,
            400 | 413 | 415 | 422 => Self::INVALID_ARGUMENT,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::NOT_FOUND,
            405 | 501 => Self::UNIMPLEMENTED,
            408 => Self::DEADLINE_EXCEEDED,
            409 => Self::ALREADY_EXISTS,
            429 => Self::RESOURCE_EXHAUSTED,
            502..=504 => Self::UNAVAILABLE,
            500..=599 => Self::INTERNAL,
            _ => Self::UNKNOWN,
        }
    }

    /// What headers or trailers say.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        headers.get(STATUS)?.to_str().ok()?.parse().ok().map(Self)
    }
}

#[cfg(feature = "tonic")]
impl From<tonic::Code> for Code {
    fn from(code: tonic::Code) -> Self {
        Self(code as u32)
    }
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// The word for programs, which HTTP's clients read in the problem document.
const PROBLEM: HeaderName = HeaderName::from_static("problem-code");

/// The content type, where a request or a response is one of gRPC's: `application/grpc`,
/// `application/grpc+proto`, `application/grpc-web-text`, …
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&HeaderValue> {
    const ESSENCE: &[u8] = b"application/grpc";
    let value = headers.get(header::CONTENT_TYPE)?;
    let (essence, rest) = value.as_bytes().split_at_checked(ESSENCE.len())?;
    let ends = rest.first().is_none_or(|byte| b"+-; ".contains(byte));
    (ends && essence.eq_ignore_ascii_case(ESSENCE)).then_some(value)
}

/// The refusal that this response is, as gRPC has it: its headers become metadata, its body is left
/// out.
pub(crate) fn refusal(
    response: Response<Bytes>,
    content_type: &HeaderValue,
    code: Option<&'static str>,
    message: &str,
) -> Response<Bytes> {
    let (mut head, _) = response.into_parts();
    let status = Code::of_http(head.status);
    head.status = StatusCode::OK;
    for of_the_body in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CACHE_CONTROL] {
        head.headers.remove(of_the_body);
    }
    head.headers.insert(header::CONTENT_TYPE, content_type.clone());
    head.headers.insert(STATUS, status.number().into());
    head.headers.insert(MESSAGE, percent_encoded(message));
    if let Some(code) = code {
        head.headers.insert(PROBLEM, HeaderValue::from_static(code));
    }
    push_back(&mut head.headers);
    Response::from_parts(head, Bytes::new())
}

/// Says when to try again in the form that gRPC's retries read (gRFC A6): what `Retry-After` says; a
/// refusal for lack of room that has none lasts, and is not to be tried again.
pub(crate) fn push_back(headers: &mut HeaderMap) {
    let wait = headers.get(header::RETRY_AFTER).map(|wait| wait.to_str().ok()?.parse().ok());
    let wait: Option<u64> = wait.flatten();
    match (wait, Code::read(headers)) {
        (Some(wait), _) => drop(headers.insert(PUSHBACK, wait.saturating_mul(1000).into())),
        (None, Some(Code::RESOURCE_EXHAUSTED)) => {
            headers.insert(PUSHBACK, HeaderValue::from_static("-1"));
        }
        _ => {}
    }
}

/// `Status-Message`: printable ASCII, and everything else byte by byte.
fn percent_encoded(message: &str) -> HeaderValue {
    use std::fmt::Write;

    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | b'\x7f'.. => drop(write!(text, "%{byte:02X}")),
            byte => text.push(byte.into()),
        }
    }
    // Nothing is left that a header can't have.
    HeaderValue::try_from(text).unwrap_or(const { HeaderValue::from_static("") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_types_of_grpc_are() {
        let headers = |text: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))])
        };
        for text in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web-text",
            "Application/gRPC; x=y",
        ] {
            assert!(content_type(&headers(text)).is_some(), "{text}");
        }
        for text in ["", "application/json", "application/grp", "application/grpcx", "x/grpc"] {
            assert!(content_type(&headers(text)).is_none(), "{text}");
        }
        assert!(content_type(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_refusal_is_trailers_without_a_message() {
        let response = Response::builder()
            .status(429)
            .header("retry-after", "3")
            .header("content-length", "4")
            .header("www-authenticate", "Bearer")
            .body(Bytes::from_static(b"body"))
            .unwrap();
        let kind = HeaderValue::from_static("application/grpc+proto");
        let response = refusal(response, &kind, Some("rate_limited"), "100 % füll\n");
        assert_eq!(response.status(), 200);
        assert!(response.body().is_empty());
        let said = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(said("content-type"), Some("application/grpc+proto"));
        assert_eq!(said("grpc-status"), Some("8"));
        assert_eq!(said("grpc-message"), Some("100 %25 f%C3%BCll%0A"));
        assert_eq!(said("grpc-retry-pushback-ms"), Some("3000"));
        assert_eq!(said("www-authenticate"), Some("Bearer"));
        assert_eq!(said("problem-code"), Some("rate_limited"));
        assert_eq!(said("content-length"), None);
    }

    #[test]
    fn what_lasts_is_not_to_be_tried_again() {
        let kind = HeaderValue::from_static("application/grpc");
        for (status, pushback) in [(429, Some("-1")), (401, None), (500, None)] {
            let response = Response::builder().status(status).body(Bytes::new()).unwrap();
            let response = refusal(response, &kind, None, "");
            let said = response.headers().get("grpc-retry-pushback-ms");
            assert_eq!(said.map(|value| value.to_str().unwrap()), pushback, "{status}");
        }
    }
}
