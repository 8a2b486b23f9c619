//! What a refused caller receives: problem details (RFC 9457). Refusals become responses here and
//! nowhere else.

mod errors;

use std::{
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::grpc;

/// A refusal in the form of RFC 9457: `application/problem+json` with `type`, `title`, `status`,
/// `detail`, and `code`, a word for programs that never changes.
///
/// It is never cached (`Cache-Control: no-store`). Every error of this crate that a handler may meet
/// becomes one, so that `?` says the right thing in handlers that answer `Result<_, Problem>`; what is
/// the server's own fault is logged with its cause, and told to nobody.
///
/// ```
/// use http::StatusCode;
/// use tower_warden::{Problem, token::TokenError};
/// let response = Problem::new(StatusCode::CONFLICT, "email_taken", "Email already registered")
///     .with_member("hint", "log in")
///     .into_http();
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// assert!(response.body().starts_with(br#"{"type":"about:blank","title":"Conflict","status":409,"#));
///
/// let expired = Problem::from(TokenError::Expired);
/// assert_eq!(expired.to_string(), "401 token_expired: Token expired");
/// ```
#[derive(Clone, Debug)]
pub struct Problem(Box<Said>);

#[derive(Clone, Debug)]
struct Said {
    status: StatusCode,
    kind: &'static str,
    /// Where it isn't the status's own.
    title: Option<&'static str>,
    code: &'static str,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: HeaderMap,
}

/// The [`code`](Problem::code) of a problem, in the extensions of its response: for logs, metrics,
/// and rules that charge by what became of a request.
///
/// ```
/// use http::StatusCode;
/// use tower_warden::{ProblemCode, limit::Charge};
/// // Only wrong passwords, and no other 401.
/// let wrong = Charge::when(|response| {
///     response.status == StatusCode::UNAUTHORIZED
///         && response.extensions.get() == Some(&ProblemCode("invalid_credentials"))
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemCode(pub &'static str);

/// The response of a problem whose document was written.
pub(crate) fn response(
    status: StatusCode,
    code: &'static str,
    headers: HeaderMap,
    document: Vec<u8>,
) -> Response<Bytes> {
    const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
    const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
    let mut response = Response::new(Bytes::from(document));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response.extensions_mut().insert(ProblemCode(code));
    response
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// What every problem has.
const MEMBERS: [&str; 5] = ["type", "title", "status", "detail", "code"];

impl Problem {
    /// A problem of the type `about:blank`, whose title is the status's own.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Said {
            status,
            kind: "about:blank",
            title: None,
            code,
            detail: detail.into(),
            members: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// 500: something that is not the caller's fault, and not the caller's business.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error")
    }

    /// 404: no such route or thing.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found")
    }

    /// 503: the same request may work after so many seconds.
    #[must_use]
    pub fn unavailable(retry_after: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable")
            .with_header(header::RETRY_AFTER, retry_after.into())
    }

    /// The same with another `type`, a URI. With it goes a [title](Self::with_title).
    #[must_use]
    pub fn with_type(mut self, uri: &'static str) -> Self {
        self.0.kind = uri;
        self
    }

    /// The same with another `title`: what this type of problem is, whatever happened this time (RFC 9457,
    /// section 3.1.3). Of `about:blank` it is the status's own.
    #[must_use]
    pub fn with_title(mut self, title: &'static str) -> Self {
        self.0.title = Some(title);
        self
    }

    /// The same with another `code`.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// The same with another `detail`: the sentence for people.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// The same with a further member. The five that every problem has are not changed by it: one that
    /// is named like them is left out.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !MEMBERS.contains(&name) {
            self.0.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The same with a `WWW-Authenticate` challenge of the Bearer scheme (RFC 6750, section 3).
    /// `error` is one of its error codes. None of the three holds a quote or a backslash; with what no
    /// header can carry the challenge is left out.
    #[must_use]
    pub fn with_bearer_challenge(
        self,
        realm: &str,
        error: Option<&str>,
        description: Option<&str>,
    ) -> Self {
        let pairs = [("error", error), ("error_description", description)];
        let pairs: Vec<_> =
            pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.with_challenge(realm, &pairs)
    }

    /// The same with a challenge of the Bearer scheme that has these parameters.
    pub(crate) fn with_challenge(self, realm: &str, parameters: &[(&str, &str)]) -> Self {
        let mut challenge = format!("Bearer realm=\"{realm}\"");
        for (name, value) in parameters {
            challenge.push_str(&format!(", {name}=\"{value}\""));
        }
        match HeaderValue::try_from(challenge) {
            Ok(value) => self.with_header(header::WWW_AUTHENTICATE, value),
            Err(_) => self,
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The response that says it, with [`ProblemCode`] in its extensions.
    #[must_use]
    pub fn into_http(self) -> Response<Bytes> {
        let Said { status, kind, title, code, detail, members, headers } = *self.0;
        let document = Document {
            r#type: kind,
            title: title.or(status.canonical_reason()).unwrap_or("Error"),
            status: status.as_u16(),
            detail: &detail,
            code,
            members: &members,
        };
        let mut body = Vec::with_capacity(320);
        // Text and JSON values always serialize.
        let _ = serde_json::to_writer(&mut body, &document);
        response(status, code, headers, body)
    }

    /// The same for a client of gRPC, whose request had this content type: a response that is all
    /// trailers, with the status code that gRPC has for it, the detail as its message, and headers as
    /// metadata. Members are left out.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use tower_warden::Problem;
    /// let response = Problem::unavailable(2).into_grpc(&HeaderValue::from_static("application/grpc"));
    /// assert_eq!(response.status(), 200);
    /// assert_eq!(response.headers()["grpc-status"], "14");
    /// assert_eq!(response.headers()["grpc-retry-pushback-ms"], "2000");
    /// ```
    #[must_use]
    pub fn into_grpc(self, content_type: &HeaderValue) -> Response<Bytes> {
        let Said { status, code, detail, headers, .. } = *self.0;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.extensions_mut().insert(ProblemCode(code));
        grpc::refusal(response, content_type, Some(code), &detail)
    }
}

/// The status, the code, and the sentence for people.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { status, code, detail, .. } = &*self.0;
        write!(f, "{} {code}: {detail}", status.as_u16())
    }
}

impl std::error::Error for Problem {}

/// A realm for challenges.
///
/// # Panics
/// Where it is not printable ASCII without quotes and backslashes.
pub(crate) fn checked_realm(realm: &str) -> Arc<str> {
    let printable = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    assert!(realm.bytes().all(printable), "a realm is printable ASCII without quotes");
    realm.into()
}

pin_project! {
    /// The body of a response that a layer let pass, or gave itself.
    ///
    /// The one bound on the inner body is `http_body::Body<Data = Bytes>`, which the bodies of
    /// hyper, axum and tonic meet.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        of: BodyOf<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = Projected]
    enum BodyOf<B> {
        Inner { #[pin] body: B, watch: Option<Watch> },
        Layer { bytes: Bytes },
    }
}

/// What is done once, with the trailers of a body, or without where it ended and had none. Dropped
/// undone where nobody read the body to its end.
pub(crate) struct Watch(pub(crate) Box<Done>);

type Done = dyn FnOnce(Option<&HeaderMap>) + Send + Sync;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl<B> ResponseBody<B> {
    /// Wraps the inner service's response.
    pub(crate) fn inner(response: Response<B>) -> Response<Self> {
        response.map(|body| Self { of: BodyOf::Inner { body, watch: None } })
    }

    /// Wraps the inner service's response, whose trailers are waited for.
    pub(crate) fn watched(response: Response<B>, watch: Watch) -> Response<Self> {
        response.map(|body| Self { of: BodyOf::Inner { body, watch: Some(watch) } })
    }

    /// Wraps the layer's own.
    pub(crate) fn own(response: Response<Bytes>) -> Response<Self> {
        response.map(|bytes| Self { of: BodyOf::Layer { bytes } })
    }
}

/// Empty: what a layer further out, such as one for CORS, answers with.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { of: BodyOf::Layer { bytes: Bytes::new() } }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().of.project() {
            Projected::Inner { body, watch: None } => body.poll_frame(cx),
            Projected::Inner { body, watch } => {
                let polled = ready!(body.poll_frame(cx));
                let trailers = match &polled {
                    Some(Ok(frame)) => frame.trailers_ref(),
                    _ => None,
                };
                if (trailers.is_some() || !matches!(polled, Some(Ok(_))))
                    && let Some(Watch(done)) = watch.take()
                {
                    done(trailers);
                }
                Poll::Ready(polled)
            }
            Projected::Layer { bytes } if bytes.is_empty() => Poll::Ready(None),
            Projected::Layer { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.of {
            BodyOf::Inner { body, .. } => body.is_end_stream(),
            BodyOf::Layer { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.of {
            BodyOf::Inner { body, .. } => body.size_hint(),
            BodyOf::Layer { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_stands_there_twice_and_a_title_goes_with_its_type() {
        let mut problem = Problem::new(StatusCode::CONFLICT, "out_of_stock", "None is left")
            .with_type("https://shop.example/problems/stock")
            .with_title("Out of stock")
            .with_member("left", 0);
        for name in MEMBERS {
            problem = problem.with_member(name, "another");
        }
        assert_eq!(problem.to_string(), "409 out_of_stock: None is left");
        let said = concat!(
            r#"{"type":"https://shop.example/problems/stock","title":"Out of stock","status":409,"#,
            r#""detail":"None is left","code":"out_of_stock","left":0}"#,
        );
        assert_eq!(problem.into_http().body(), said);
    }
}
