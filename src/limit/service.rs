//! What [`RateLimitLayer`](super::RateLimitLayer) makes of a service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{ResponseFuture, future::Waiting, layer::Shared, verdict::Verdict};
use crate::{RequestHead, ResponseBody};

/// What [`RateLimitLayer`](super::RateLimitLayer) makes of a service.
///
/// Named where a stack is kept in a field:
///
/// ```
/// use tower::Layer;
/// use tower_warden::{
///     Quota, RateLimitLayer, Rule, limit::RateLimitService, store::memory::MemoryRateLimitStore,
/// };
///
/// /// What a connection is served with: a stack whose type is written out.
/// struct Api<S> {
///     limited: RateLimitService<S>,
/// }
///
/// impl<S> Api<S> {
///     fn new(inner: S, limit: &RateLimitLayer) -> Self {
///         Self { limited: limit.layer(inner) }
///     }
/// }
/// let rule = Rule::per_ip("ip", Quota::per_minute(100));
/// let api = Api::new("a service", &RateLimitLayer::new(MemoryRateLimitStore::new(), rule));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> RateLimitService<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimitService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let awaited = match self.shared.judge(RequestHead::from(&request)) {
            Verdict::Passes => return ResponseFuture::passing(self.inner.call(request)),
            Verdict::Admitted(pending) => {
                return ResponseFuture::admitted(self.inner.call(request), pending);
            }
            Verdict::Refused(response) => return ResponseFuture::refused(response),
            Verdict::Waiting(awaited) => awaited,
        };
        let (inner, shared) = (self.take_ready(), Arc::clone(&self.shared));
        ResponseFuture::waiting(Waiting { awaited, shared, inner, request })
    }
}

impl<S: Clone> RateLimitService<S> {
    /// The service that was polled ready is the one to call; a clone stays behind.
    fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        std::mem::replace(&mut self.inner, clone)
    }
}
