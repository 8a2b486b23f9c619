//! What may be asked of a request before its body is read.

use http::{Extensions, HeaderMap, Method, Request, Uri};

use crate::Identity;

/// A request without its body: what authenticators and rules see.
///
/// ```
/// use tower_warden::{Key, Quota, Rule};
/// // From a header that a gateway sets in place of what its clients sent.
/// let tenants = Rule::by_key("tenant", Quota::per_minute(600), |head| {
///     Some(Key::from(head.headers.get("x-tenant")?.to_str().ok()?))
/// })
/// .or_refuse()
/// .when(|head| head.method != http::Method::OPTIONS && head.uri.path() != "/health");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What outer layers learnt.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// Who is calling, where [`RequireAuth`](crate::RequireAuth) or a form of it stands further
    /// out and knows.
    #[must_use]
    pub fn identity(&self) -> Option<&'a Identity> {
        self.extensions.get()
    }
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}
