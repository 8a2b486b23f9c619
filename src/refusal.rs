//! What the layers refuse with, and a hook that words it otherwise.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Response;

use crate::{
    Identity, NoPeerAddr, Problem, RequestHead, StoreError,
    auth::AuthError,
    grpc,
    limit::{Exceeded, LimiterName},
};

/// A request that a layer refuses, as a [`RefusalHook`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// What is refused.
    pub request: RequestHead<'a>,
    /// Why it is.
    pub reason: RefusalReason<'a>,
}

/// Why a layer refuses a request.
///
/// ```
/// use tower_warden::{Problem, RefusalHook, RefusalReason};
/// let hook = RefusalHook::new(|refusal, problem: Problem| match refusal.reason {
///     RefusalReason::Unauthenticated(_) => problem.with_detail("Log in at https://example.com/login"),
///     RefusalReason::Forbidden(Some(caller)) => problem.with_member("role", caller.role().as_str()),
///     _ => problem,
/// });
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RefusalReason<'a> {
    /// [`RequireAuth`](crate::RequireAuth) knows no caller: 401, 400 or 503.
    Unauthenticated(&'a AuthError),
    /// [`Require`](crate::Require) or [`RequireRole`](crate::RequireRole) do not let this caller
    /// pass: 403. `None` where the stack is built wrong, so that they know of none.
    Forbidden(Option<&'a Identity>),
    /// [`RateLimitLayer`](crate::RateLimitLayer) finds that the request is one too many: 429.
    Exceeded(&'a Exceeded),
    /// [`RateLimitLayer`](crate::RateLimitLayer) can't decide, and is to
    /// [refuse](crate::limit::OnFailure::Deny) meanwhile: 503.
    Undecided(&'a StoreError),
    /// [`RateLimitLayer`](crate::RateLimitLayer) can't tell whose request it is, since the stack is
    /// built wrong: 500.
    NoPeer(&'a NoPeerAddr),
    /// A [rule](crate::Rule::or_refuse) finds no key to count the request by: 400.
    NoKey(LimiterName),
    /// It stands on a rule's [list](crate::limit::AccessList) of those who are never let in: 403.
    Denied(LimiterName),
}

/// Refusals in your own words: one for all layers, asked for each refusal of theirs. It may replace
/// the response, never the decision.
///
/// It is given what is refused and why, and the [`Problem`] that would be answered. It may answer
/// with that, changed or not, or with a response whose body is text or bytes; with the feature `axum`
/// also with one of axum's, whose body is there at once. Where the request is one of gRPC's
/// (`application/grpc…`), a problem becomes a status of gRPC's, and so does a response of another
/// content type: its body is left out then.
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_warden::{
///     Quota, RateLimitLayer, RefusalHook, RequireAuth, TokenService, limit::Rule,
///     store::memory::MemoryRateLimitStore,
/// };
/// # use tower_warden::{store::memory::MemoryStore, token::{KeySet, SigningKey}};
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
/// let page = RefusalHook::new(|refusal, problem| {
///     let said = format!("{} {}: {}\n", problem.status(), refusal.request.uri, problem.detail());
///     let response = Response::builder().status(problem.status());
///     response.header("content-type", "text/plain").body(said).unwrap()
/// });
/// let auth = RequireAuth::new(tokens).with_refusal(page.clone());
/// let limit = RateLimitLayer::new(
///     MemoryRateLimitStore::new(),
///     [Rule::per_ip("ip", Quota::per_minute(100))],
/// )
/// .with_refusal(page);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RefusalHook(Arc<Hook>);

type Hook = dyn Fn(&Refusal<'_>, Problem) -> RefusalAnswer + Send + Sync;

/// What a [`RefusalHook`] may answer: a [`Problem`], or a response with a body that is there at
/// once.
#[derive(Debug)]
pub struct RefusalAnswer(Answered);

#[derive(Debug)]
enum Answered {
    Problem(Problem),
    Response(Response<Bytes>),
}

impl RefusalHook {
    /// A hook that answers what this closure does.
    pub fn new<R: Into<RefusalAnswer>>(
        answer: impl Fn(&Refusal<'_>, Problem) -> R + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |refusal, problem| answer(refusal, problem).into()))
    }
}

impl fmt::Debug for RefusalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusalHook")
    }
}

impl Refusal<'_> {
    /// The response: the hook's, or the problem; for a client of gRPC in the form that it reads.
    pub(crate) fn answer(&self, problem: Problem, hook: Option<&RefusalHook>) -> Response<Bytes> {
        let answered = match hook {
            Some(RefusalHook(hook)) => hook(self, problem).0,
            None => Answered::Problem(problem),
        };
        let grpc = grpc::content_type(self.request.headers);
        match (answered, grpc) {
            (Answered::Problem(problem), None) => problem.into_http(),
            (Answered::Problem(problem), Some(kind)) => problem.into_grpc(kind),
            (Answered::Response(response), Some(kind))
                if grpc::content_type(response.headers()).is_none() =>
            {
                let reason = response.status().canonical_reason().unwrap_or_default();
                grpc::refusal(response, kind, None, reason)
            }
            (Answered::Response(response), _) => response,
        }
    }
}

impl From<Problem> for RefusalAnswer {
    fn from(problem: Problem) -> Self {
        Self(Answered::Problem(problem))
    }
}

impl From<Response<Bytes>> for RefusalAnswer {
    fn from(response: Response<Bytes>) -> Self {
        Self(Answered::Response(response))
    }
}

impl From<Response<String>> for RefusalAnswer {
    fn from(response: Response<String>) -> Self {
        response.map(Bytes::from).into()
    }
}

impl From<Response<&'static str>> for RefusalAnswer {
    fn from(response: Response<&'static str>) -> Self {
        response.map(Bytes::from).into()
    }
}

impl From<Response<Vec<u8>>> for RefusalAnswer {
    fn from(response: Response<Vec<u8>>) -> Self {
        response.map(Bytes::from).into()
    }
}

impl From<Response<()>> for RefusalAnswer {
    fn from(response: Response<()>) -> Self {
        response.map(|()| Bytes::new()).into()
    }
}
