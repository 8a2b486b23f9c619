//! Observing requests: a span for each, and where it comes from.
//!
//! [`ObserveLayer`] stands outside of all other layers, one line:
//!
//! 1. It opens a span (`request`, INFO, target `tower_warden::request`) around everything that the
//!    request does. Its fields are named as OpenTelemetry names them: `http.request.method`, `http.route`
//!    (the template, never the path), `http.response.status_code`, `client.address`, and `user.id`, once
//!    [`RequireAuth`](crate::RequireAuth) knows it; `limiter` and `limit.outcome` (`allowed`, `refused`,
//!    `would_refuse`; what was refused counts before all else); `request_id`, which is made here and
//!    unique, unless a gateway's is [taken over](ObserveLayer::with_request_id); `trace_id` and
//!    `parent_id`, from the caller.
//! 2. It takes [`traceparent`](TraceContext) over (W3C Trace Context), into the span, the extensions of the
//!    request, and whatever you give it to. One that is malformed, or there twice, is none. A stranger
//!    who invents one has his own requests in a trace of his choice, and nothing else: `request_id` is
//!    ours. Who doesn't want that says [`with_own_traces`](ObserveLayer::with_own_traces).
//! 3. It says who asks from where ([`Origin`](crate::Origin)) to the [audit](crate::audit).
//! 4. It times requests by route and kind of status (`tower_warden_request_seconds`, feature `metrics`).
//! 5. A line at the end of each request (DEBUG, the same target) is an access log, if you want one:
//!    `RUST_LOG=info,tower_warden::request=debug`.
//!
//! In axum the route is known in what `Router::layer` adds, after routing; elsewhere say it by
//! [`with_route`](ObserveLayer::with_route).
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_warden::{ObserveLayer, Origin, PeerAddr, observe::TraceContext};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handler = service_fn(async |request: Request<()>| {
//!     let trace: &TraceContext = request.extensions().get().unwrap();
//!     assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
//!     let origin = Origin::current().unwrap();
//!     assert_eq!(origin.ip().unwrap().to_string(), "203.0.113.9");
//!     Ok::<_, &str>(Response::new(Empty::<Bytes>::new()))
//! });
//! let service = ServiceBuilder::new().layer(ObserveLayer::new()).service(handler);
//!
//! let request = Request::get("/")
//!     .extension(PeerAddr::from(([203, 0, 113, 9], 4711)))
//!     .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
//! service.oneshot(request.body(())?).await?;
//! # Ok(()) }
//! ```
//!
//! OpenTelemetry takes these spans, and their parents, in a few lines: see the
//! [guide](crate::guide::opentelemetry).

mod layer;
mod trace_context;

pub use layer::{ObserveLayer, ObserveService, ResponseFuture};
pub use trace_context::TraceContext;
