//! [`DrainLayer`]: refusals that reach their callers.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, time::timeout};
use tower_layer::Layer;
use tower_service::Service;

/// Reads, within bounds, what requests still send after they were answered, so that callers get
/// their answers.
///
/// A layer that refuses a request (401, 403, 429) doesn't read its body, and neither does a router
/// (404, 405). A server then stops reading the connection: a client that is still sending is cut
/// off (`EPIPE`, `ECONNRESET`), often without having seen the answer, and a connection that was to
/// be kept alive is dead. This layer stands outside of all others that refuse:
///
/// 1. A body that nobody has read to its end, up to 1 MiB of it and for 5 s at most, is read and
///    thrown away while the answer is on its way. The answer waits for nothing.
/// 2. Where the body is announced to be longer than that, or the client waits for
///    `100 Continue` before it sends any, an answer over HTTP/1 says `Connection: close`.
///
/// A request without a body costs nothing. What is beyond the bounds is cut off by the server; one
/// that lingers a little before it closes the socket gets the answer to those clients, too.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::{Empty, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_warden::{
///     DrainLayer, RequireAuth, TokenService,
///     store::memory::MemoryStore,
///     token::{KeySet, SigningKey},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
/// let service = ServiceBuilder::new()
///     .layer(DrainLayer::new())
///     .layer(RequireAuth::new(tokens))
///     .service(service_fn(async |_| Ok::<_, &str>(Response::new(Empty::<Bytes>::new()))));
///
/// // Refused, and what the client sends is read all the same.
/// let request = Request::post("/").body(Full::new(Bytes::from_static(b"twenty kilobytes")))?;
/// let response = service.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct DrainLayer {
    bytes: u64,
    time: Duration,
}

impl DrainLayer {
    /// With the bounds that are named above.
    pub fn new() -> Self {
        Self { bytes: 1024 * 1024, time: Duration::from_secs(5) }
    }

    /// The same with other bounds: so many bytes of a body, and for so long.
    pub fn with_bounds(self, bytes: u64, time: Duration) -> Self {
        Self { bytes, time }
    }
}

impl Default for DrainLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> DrainService<S> {
        DrainService { inner, layer: *self }
    }
}

/// What [`DrainLayer`] makes of a service.
///
/// Named where the type of a stack is written out:
///
/// ```
/// use tower::Layer;
/// use tower_warden::{DrainLayer, DrainService};
///
/// fn drained<S>(inner: S, drain: &DrainLayer) -> DrainService<S> {
///     drain.layer(inner)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    layer: DrainLayer,
}

impl<S, B, R> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<DrainedBody<B>>, Response = Response<R>>,
    B: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let old = request.version() < Version::HTTP_2;
        let invited = !old || !request.headers().contains_key(header::EXPECT);
        let short = request.body().size_hint().lower() <= self.layer.bytes;
        // Only where it will be asked for.
        let read = (old && !(invited && short) && !request.body().is_end_stream())
            .then(Arc::<AtomicBool>::default);
        let state = read.clone();
        let request = request.map(|body| DrainedBody {
            ended: body.is_end_stream(),
            body: Some(body),
            invited,
            read,
            layer: self.layer,
        });
        ResponseFuture { future: self.inner.call(request), read: state }
    }
}

/// The body of a request within a [`DrainLayer`].
pub struct DrainedBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    /// Taken when dropped.
    body: Option<B>,
    ended: bool,
    /// Whether the client sends it unasked, or was asked for it.
    invited: bool,
    /// Tells the future of the response that the body was read to its end.
    read: Option<Arc<AtomicBool>>,
    layer: DrainLayer,
}

impl<B> Body for DrainedBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.invited = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            self.ended = true;
            if let Some(read) = &self.read {
                read.store(true, Relaxed);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(B::size_hint).unwrap_or_default()
    }
}

impl<B> Drop for DrainedBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        if self.ended || !self.invited {
            return;
        }
        let (Some(body), Ok(runtime)) = (self.body.take(), Handle::try_current()) else { return };
        let DrainLayer { bytes, time } = self.layer;
        runtime.spawn(async move {
            let _ = timeout(time, drain(body, bytes)).await;
        });
    }
}

impl<B> fmt::Debug for DrainedBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainedBody").field("ended", &self.ended).finish_non_exhaustive()
    }
}

async fn drain<B: Body + Unpin>(mut body: B, mut bytes: u64) {
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match bytes.checked_sub(length) {
            Some(left) => bytes = left,
            None => return,
        }
    }
}

pin_project! {
    /// The response of [`DrainService`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        read: Option<Arc<AtomicBool>>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if this.read.as_ref().is_some_and(|read| !read.load(Relaxed)) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
