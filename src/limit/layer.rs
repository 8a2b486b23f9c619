//! [`RateLimitLayer`]: what is chosen when a stack is built.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tower_layer::Layer;

use super::{
    Decision, Exceeded, RateLimitService, RateLimitStore, Rule, exceeded,
    headers::{self, LimitHeaders, Report, Reports, Writer},
    rule::NotAsked,
    store::{Decisions, Hold, Take},
    verdict::decided,
};
use crate::{
    Answer, NoPeerAddr, Problem, Refusal, RefusalHook, RefusalReason, RequestHead, SharedClock,
    StoreError, grpc,
};

/// Refuses requests that are too many. Unlike tower's `RateLimitLayer`, which makes callers wait, it
/// answers 429. See the [module docs](crate::limit).
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_warden::{
///     PeerAddr, Quota, RateLimitLayer, Rule, limit::LimitHeaders, store::memory::MemoryRateLimitStore,
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = [
///     Rule::per_ip("burst", Quota::per_second(2)),
///     Rule::per_ip("hour", Quota::per_hour(1_000)),
/// ];
/// let layer = RateLimitLayer::new(MemoryRateLimitStore::new(), rules).with_headers(LimitHeaders::Draft);
/// let service =
///     layer.layer(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
///
/// let client = PeerAddr::from(([203, 0, 113, 9], 4711));
/// for status in [200, 200, 429] {
///     let request = Request::get("/").extension(client).body(())?;
///     let response = service.clone().oneshot(request).await?;
///     assert_eq!(response.status(), status);
///     let policies = r#""burst";q=2;w=1, "hour";q=1000;w=3600"#;
///     assert_eq!(response.headers()["ratelimit-policy"], policies);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer {
    pub(super) shared: Arc<Shared>,
}

// In cache lines of its own, beside the count of who shares it: that is written for each request, by whichever
// core serves it.
#[derive(Clone)]
#[repr(align(128))]
pub(super) struct Shared {
    pub(super) store: Arc<dyn RateLimitStore>,
    pub(super) rules: Box<[Rule]>,
    pub(super) on_failure: OnFailure,
    pub(super) clock: SharedClock,
    pub(super) headers: Writer,
    pub(super) refusal: Option<RefusalHook>,
}

/// What becomes of a request while the store can't decide.
///
/// ```
/// # use tower_warden::{Quota, RateLimitLayer, Rule, limit::OnFailure, store::memory::MemoryRateLimitStore};
/// # let (store, rule) = (MemoryRateLimitStore::new(), Rule::per_ip("ip", Quota::per_minute(100)));
/// let layer = RateLimitLayer::new(store, rule).with_on_failure(OnFailure::Deny);
/// ```
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
    /// Applies a rule, or several, to each request, all or nothing: what one refuses no other counts.
    ///
    /// ```
    /// # use tower_warden::{Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};
    /// let store = MemoryRateLimitStore::new();
    /// let one = RateLimitLayer::new(store.clone(), Rule::per_ip("ip", Quota::per_minute(100)));
    /// let burst_and_day = RateLimitLayer::new(store, [
    ///     Rule::per_ip("burst", Quota::per_second(10)),
    ///     Rule::per_ip("day", Quota::per_day(10_000)),
    /// ]);
    /// ```
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
                headers: Writer::default(),
                refusal: None,
            }),
        }
    }

    /// Lets everything pass, uncounted and without headers: a limit that a configuration has switched
    /// off.
    ///
    /// `tower::util::option_layer` is no way to do that: this layer changes the type of a response's
    /// body, and both sides of an option have to agree. An `Option` of this layer becomes a layer
    /// itself:
    ///
    /// ```
    /// # use tower_warden::{Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};
    /// # let enabled = false;
    /// let limit = enabled.then(|| {
    ///     RateLimitLayer::new(MemoryRateLimitStore::new(), Rule::per_ip("ip", Quota::per_minute(100)))
    /// });
    /// let layer = RateLimitLayer::from(limit);
    /// ```
    pub fn off() -> Self {
        Self::new(NoStore, [])
    }

    /// The same with another choice of what becomes of requests while the store can't decide.
    pub fn with_on_failure(self, on_failure: OnFailure) -> Self {
        self.change(|shared| shared.on_failure = on_failure)
    }

    /// The same with another clock than the store's, for the time of day in the headers.
    pub fn with_clock(self, clock: SharedClock) -> Self {
        self.change(|shared| shared.clock = clock)
    }

    /// The same with another choice of the headers that tell how the limits stand.
    pub fn with_headers(self, headers: LimitHeaders) -> Self {
        self.change(|shared| shared.headers = Writer::new(headers))
    }

    /// The same without the headers that tell how the limits stand. A refusal has its `Retry-After`
    /// all the same.
    pub fn without_headers(self) -> Self {
        self.with_headers(LimitHeaders::None)
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

impl From<Option<RateLimitLayer>> for RateLimitLayer {
    fn from(layer: Option<Self>) -> Self {
        layer.unwrap_or_else(Self::off)
    }
}

/// The store of a layer that never asks.
#[derive(Debug)]
struct NoStore;

impl RateLimitStore for NoStore {
    fn take(&self, _: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        Answer::Ready(Err(StoreError::not_offered("take")))
    }

    fn settle(&self, _: Hold, _: bool) -> Answer<Result<Decision, StoreError>> {
        Answer::Ready(Err(StoreError::not_offered("settle")))
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
        let wait = headers::retry_after(&longest.decision);
        let otherwise = self.refusal.is_some() || grpc::content_type(request.headers).is_some();
        let mut response = if otherwise {
            self.refuse_in_other_words(request, longest, reports)
        } else {
            exceeded::response(wait, reports, HeaderMap::with_capacity(self.room_of_refusal()))
        };
        if let Some(wait) = wait {
            response.headers_mut().insert(http::header::RETRY_AFTER, headers::number(wait));
        }
        if otherwise && grpc::content_type(response.headers()).is_some() {
            grpc::push_back(response.headers_mut());
        }
        self.write_headers(reports, &mut response);
        response
    }

    /// How many headers a refusal has, with one that a server writes after them.
    // No more: a map for six takes a third of the time of the next larger one.
    fn room_of_refusal(&self) -> usize {
        3 + self.headers.count() + 1
    }

    /// The hook's, or gRPC's.
    #[cold]
    fn refuse_in_other_words(
        &self,
        request: RequestHead<'_>,
        longest: Report,
        reports: &Reports,
    ) -> Response<Bytes> {
        let exceeded = Exceeded::new(longest, reports);
        let refusal = Refusal { request, reason: RefusalReason::Exceeded(&exceeded) };
        refusal.answer(exceeded.to_problem(), self.refusal.as_ref())
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

    /// What a request is answered of which the store isn't asked.
    pub(super) fn not_asked(
        &self,
        request: RequestHead<'_>,
        not_asked: &NotAsked,
    ) -> Response<Bytes> {
        let (reason, problem) = match not_asked {
            NotAsked::NoPeer(error) => {
                no_peer(*error);
                (RefusalReason::NoPeer(error), Problem::internal())
            }
            NotAsked::NoKey(limiter) => (RefusalReason::NoKey(*limiter), no_key()),
            NotAsked::Denied(limiter) => (RefusalReason::Denied(*limiter), denied()),
            NotAsked::Waits(limiter, decision) => {
                decided(*limiter, false);
                let report = Report { limiter: *limiter, decision: *decision };
                return self.refuse(request, report, &Reports([report].into_iter().collect()));
            }
        };
        Refusal { request, reason }.answer(problem, self.refusal.as_ref())
    }

    /// Says in the response how the limits stand.
    pub(super) fn write_headers<B>(&self, reports: &Reports, response: &mut Response<B>) {
        let status = response.status();
        self.headers.write(reports, response.headers_mut(), status, &self.clock);
    }
}

pub(super) fn no_peer(error: NoPeerAddr) {
    tracing::error!(%error, "can't tell clients apart: the stack is built wrong");
}

fn no_key() -> Problem {
    let detail = "The request does not say for whom it counts";
    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
}

fn denied() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "access_denied", "Access denied")
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
