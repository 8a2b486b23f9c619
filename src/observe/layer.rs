//! [`ObserveLayer`], its service and its future.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    hash::{BuildHasher, Hasher},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response, header};
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, field::Empty};

use super::TraceContext;
use crate::{Origin, RequestHead, TrustedProxies, origin::Observed, signals};

/// Puts a span around each request, takes its `traceparent` over, and says to the audit who asks from
/// where. Stands outside of all others. See the [module's docs](super).
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_warden::{ForwardedHeader, ObserveLayer, TrustedProxies};
/// let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["10.0.0.0/8"])?;
/// let app: Router = Router::new()
///     .route("/reports/{id}", get("a report"))
///     .layer(ObserveLayer::new().behind(proxies)); // the span says /reports/{id}
/// # Ok::<(), tower_warden::client_ip::InvalidProxies>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ObserveLayer(Arc<Shared>);

/// Finds a word in a request: its route, say.
type Find = Arc<dyn for<'a> Fn(&RequestHead<'a>) -> Option<Cow<'a, str>> + Send + Sync>;
type Adopt = Arc<dyn Fn(&Span, &TraceContext) + Send + Sync>;

#[derive(Clone)]
struct Shared {
    proxies: TrustedProxies,
    route: Find,
    request_id: Option<Find>,
    adopt: Option<Adopt>,
    own_traces: bool,
}

impl ObserveLayer {
    /// For a server that clients reach directly.
    pub fn new() -> Self {
        let (proxies, route) = (TrustedProxies::none(), Arc::new(matched_path));
        let shared = Shared { proxies, route, request_id: None, adopt: None, own_traces: false };
        Self(Arc::new(shared))
    }

    /// For one behind these proxies.
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        self.change(|shared| shared.proxies = proxies)
    }

    /// The same, where the route of a request is found so: its template, of which there are few. In axum
    /// it is known.
    pub fn with_route(
        self,
        route: impl for<'a> Fn(&RequestHead<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.route = Arc::new(route))
    }

    /// The same, which takes over the request's identifier that this finds: one that a gateway set, or
    /// tower-http's `SetRequestIdLayer` around this. Escaped, and cut to 256 characters. Where there is
    /// none, or it is empty, one is made as ever.
    ///
    /// Whoever sets it chooses what logs and the audit call the request, and may choose twice the same. So
    /// take over only what a gateway sets in place of what its clients sent.
    ///
    /// ```
    /// use tower_warden::ObserveLayer;
    /// let observe = ObserveLayer::new().with_request_id(|request| {
    ///     request.headers.get("x-request-id")?.to_str().ok().map(Into::into)
    /// });
    /// ```
    pub fn with_request_id(
        self,
        find: impl for<'a> Fn(&RequestHead<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.request_id = Some(Arc::new(find)))
    }

    /// The same, which gives a span and its parent to this: for OpenTelemetry, see the
    /// [guide](crate::guide::opentelemetry). The span then says `otel.name`, `otel.kind` and
    /// `otel.status_code`, too.
    pub fn with_parent(self, adopt: impl Fn(&Span, &TraceContext) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.adopt = Some(Arc::new(adopt)))
    }

    /// The same, which reads no `traceparent`: traces begin here, and whether they are recorded is
    /// decided here.
    pub fn with_own_traces(self) -> Self {
        self.change(|shared| shared.own_traces = true)
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl Shared {
    fn origin(&self, request: &RequestHead<'_>) -> Origin {
        let given = self.request_id.as_ref().and_then(|find| find(request));
        let id = given.filter(|id| !id.is_empty()).unwrap_or_else(|| new_request_id().into());
        let mut origin = Origin::new().with_request_id(&id);
        if let Ok(client) = self.proxies.client_ip(request.headers, request.extensions) {
            origin = origin.with_ip(client.addr());
        }
        if let Some(agent) = request.headers.get(header::USER_AGENT) {
            origin = origin.with_sent_agent(agent);
        }
        origin
    }

    fn span(
        &self,
        request: &RequestHead<'_>,
        route: Option<&str>,
        origin: &Origin,
        parent: Option<&TraceContext>,
    ) -> Span {
        let span = tracing::info_span!(
            target: "tower_warden::request",
            "request",
            otel.name = Empty,
            otel.kind = Empty,
            otel.status_code = Empty,
            http.request.method = request.method.as_str(),
            http.route = route,
            http.response.status_code = Empty,
            client.address = origin.ip().map(tracing::field::display),
            user.id = Empty,
            limiter = Empty,
            limit.outcome = Empty,
            request_id = origin.request_id(),
            trace_id = parent.map(TraceContext::trace_id),
            parent_id = parent.map(TraceContext::parent_id),
        );
        if let Some(adopt) = &self.adopt {
            let name = route.map(|route| Cow::Owned(format!("{} {route}", request.method)));
            let name = name.unwrap_or(Cow::Borrowed(request.method.as_str()));
            span.record("otel.name", &*name);
            span.record("otel.kind", "server");
            parent.iter().for_each(|parent| adopt(&span, parent));
        }
        span
    }
}

/// Unique in this process, and among processes by chance.
fn new_request_id() -> String {
    static RANDOM: LazyLock<u64> =
        LazyLock::new(|| std::hash::RandomState::new().build_hasher().finish());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // splitmix64: of different numbers different ones, which don't look like a count.
    let count = COUNT.fetch_add(1, Relaxed);
    let mut mixed = RANDOM.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

#[cfg(feature = "axum")]
fn matched_path<'a>(request: &RequestHead<'a>) -> Option<Cow<'a, str>> {
    let path: &axum::extract::MatchedPath = request.extensions.get()?;
    Some(Cow::Borrowed(path.as_str()))
}

#[cfg(not(feature = "axum"))]
fn matched_path<'a>(_: &RequestHead<'a>) -> Option<Cow<'a, str>> {
    None
}

impl Default for ObserveLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ObserveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveLayer").field("proxies", &self.0.proxies).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> ObserveService<S> {
        ObserveService { inner, layer: self.clone() }
    }
}

/// What [`ObserveLayer`] makes of a service.
///
/// Named where the type of a stack is written out:
///
/// ```
/// use tower::Layer;
/// use tower_warden::{ObserveLayer, observe::ObserveService};
///
/// fn observed<S>(inner: S, observe: &ObserveLayer) -> ObserveService<S> {
///     observe.layer(inner)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ObserveService<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B, R> Service<Request<B>> for ObserveService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let shared = &self.layer.0;
        let parent = TraceContext::of(request.headers()).filter(|_| !shared.own_traces);
        let head = RequestHead::from(&request);
        let origin = shared.origin(&head);
        let route = (shared.route)(&head).map(Cow::into_owned);
        let span = shared.span(&head, route.as_deref(), &origin, parent.as_ref());
        if let Some(parent) = parent {
            request.extensions_mut().insert(parent);
        }
        let observed = Arc::new(Observed::new(span));
        let origin = origin.observed_by(Arc::clone(&observed));
        let _entered = observed.span.clone().entered();
        ResponseFuture {
            future: origin.around(|| self.inner.call(request)),
            tells_otel: shared.adopt.is_some(),
            route,
            observed,
            begun: Instant::now(),
        }
    }
}

pin_project! {
    /// The response of [`ObserveService`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: TaskLocalFuture<Origin, F>,
        observed: Arc<Observed>,
        tells_otel: bool,
        route: Option<String>,
        begun: Instant,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let span = &this.observed.span;
        let _entered = span.enter();
        let outcome = ready!(this.future.poll(cx));
        if let Some((limiter, outcome)) = this.observed.decided() {
            span.record("limiter", limiter);
            span.record("limit.outcome", outcome);
        }
        let status = outcome.as_ref().ok().map(|response| response.status());
        if let Some(status) = status {
            span.record("http.response.status_code", status.as_u16());
        }
        if *this.tells_otel && status.is_none_or(|status| status.is_server_error()) {
            span.record("otel.status_code", "ERROR");
        }
        let took = this.begun.elapsed();
        let code = status.map(|status| status.as_u16());
        signals::answered(this.route.as_deref().unwrap_or_default(), code, took);
        tracing::debug!(target: "tower_warden::request", ?took, "answered");
        Poll::Ready(outcome)
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
