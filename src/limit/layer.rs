//! [`RateLimitLayer`]: what is chosen when a stack is built.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use super::{
    Exceeded, RateLimitService, RateLimitStore, Rule,
    headers::{Report, Reports, retry_after},
};
use crate::{
    NoPeerAddr, Problem, Refusal, RefusalHook, RefusalReason, RequestHead, SharedClock, StoreError,
    grpc,
};

/// Refuses requests that are too many. Unlike tower's `RateLimitLayer`, which makes callers wait, it
/// answers 429. See the [module docs](crate::limit).
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer {
    pub(super) shared: Arc<Shared>,
}

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn RateLimitStore>,
    pub(super) rules: Box<[Rule]>,
    pub(super) on_failure: OnFailure,
    pub(super) clock: SharedClock,
    pub(super) headers: bool,
    pub(super) refusal: Option<RefusalHook>,
}

/// What becomes of a request while the store can't decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// It passes, uncounted and without headers: an outage of the store is none of the service.
    #[default]
    Allow,
    /// It is refused with 503: nothing passes uncounted.
    Deny,
}

impl OnFailure {
    /// One word, for logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl RateLimitLayer {
    /// Applies these rules to each request, all or nothing: what one refuses no other counts.
    ///
    /// # Panics
    /// Where two rules have the same name.
    pub fn new(store: impl RateLimitStore, rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules: Box<[Rule]> = rules.into_iter().collect();
        for (i, rule) in rules.iter().enumerate() {
            let others = &rules[..i];
            assert!(
                others.iter().all(|other| other.name() != rule.name()),
                "two rules of one layer are named {:?}",
                rule.name()
            );
        }
        Self {
            shared: Arc::new(Shared {
                clock: store.clock(),
                store: Arc::new(store),
                rules,
                on_failure: OnFailure::Allow,
                headers: true,
                refusal: None,
            }),
        }
    }

    /// The same with another choice of what becomes of requests while the store can't decide.
    pub fn with_on_failure(self, on_failure: OnFailure) -> Self {
        self.change(|shared| shared.on_failure = on_failure)
    }

    /// The same with another clock than the store's, for the time of day in the headers.
    pub fn with_clock(self, clock: SharedClock) -> Self {
        self.change(|shared| shared.clock = clock)
    }

    /// The same without the headers that tell how the limits stand. A refusal has its `Retry-After`
    /// all the same.
    pub fn without_headers(self) -> Self {
        self.change(|shared| shared.headers = false)
    }

    /// The same with refusals in your own words. `Retry-After` and the headers of the limits are
    /// added to what the hook answers.
    pub fn with_refusal(self, hook: RefusalHook) -> Self {
        self.change(|shared| shared.refusal = Some(hook))
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl Shared {
    /// The 429 of these reports, of which this refuses for longest.
    pub(super) fn refuse(
        &self,
        request: RequestHead<'_>,
        longest: Report,
        reports: &Reports,
    ) -> Response<Bytes> {
        let violated = reports.0.iter().filter(|report| !report.decision.is_allowed());
        let exceeded = Exceeded {
            limiter: longest.limiter,
            violated: violated.map(|report| report.limiter).collect(),
            retry_after: retry_after(&longest.decision),
        };
        let refusal = Refusal { request, reason: RefusalReason::Exceeded(&exceeded) };
        let mut response = refusal.answer(exceeded.to_problem(), self.refusal.as_ref());
        if let Some(wait) = exceeded.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, wait.into());
        }
        if grpc::content_type(response.headers()).is_some() {
            grpc::push_back(response.headers_mut());
        }
        self.write_headers(reports, &mut response);
        response
    }

    /// The 503 of a store that can't decide.
    pub(super) fn undecided(
        &self,
        request: RequestHead<'_>,
        error: &StoreError,
    ) -> Response<Bytes> {
        let refusal = Refusal { request, reason: RefusalReason::Undecided(error) };
        refusal.answer(Problem::unavailable(1), self.refusal.as_ref())
    }

    /// The 500 of a stack that is built wrong.
    pub(super) fn no_peer(&self, request: RequestHead<'_>, error: &NoPeerAddr) -> Response<Bytes> {
        tracing::error!(%error, "can't tell clients apart: the stack is built wrong");
        let refusal = Refusal { request, reason: RefusalReason::NoPeer(error) };
        refusal.answer(Problem::internal(), self.refusal.as_ref())
    }

    /// Says in the response how the limits stand.
    pub(super) fn write_headers<B>(&self, reports: &Reports, response: &mut Response<B>) {
        if self.headers {
            let status = response.status();
            reports.write(response.headers_mut(), status, self.clock.now());
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, Arc::clone(&self.shared))
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("store", &self.store)
            .field("rules", &self.rules)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}
