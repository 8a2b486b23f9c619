//! Rate limiting: who may ask how often.
//!
//! [`RateLimitLayer`] asks its [`Rule`]s whom a request counts for and by which [`Quota`], asks a
//! [`RateLimitStore`] whether there is room, and answers 429 where there is none.
//!
//! 1. **A limit is a promise.** `100 per minute` admits at most 100 in any 60 seconds, wherever
//!    they begin. Token buckets, fixed windows and two-counter windows admit up to twice as many
//!    around a boundary. How it is done: [`SlidingWindow`](store::SlidingWindow).
//! 2. Several rules in one layer are decided together, all or nothing: what one refuses no other
//!    counts. Refused requests are not counted. Of layers around one another each decides for
//!    itself: what an inner one refuses an outer one has counted.
//! 3. A rule counts every request that is admitted, or only those that failed ([`Charge`]): one is
//!    taken before, and given back after, so that parallel guesses can't slip through.
//! 4. Every response of a limited request says how the limits stand, those of all layers that
//!    decided: `X-RateLimit-Limit`, `-Remaining`, `-Reset`, and the lists `RateLimit-Policy` and
//!    `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11). A 429 has `Retry-After` and a problem
//!    (RFC 9457). Headers are never made up: an exempt request, and one that the store could not
//!    decide, has none. [`RateLimitLayer::without_headers`] leaves them out.
//! 5. While the store fails requests pass ([`OnFailure::Allow`]) or are refused
//!    ([`OnFailure::Deny`]), as you choose. Around a store that may be slow or gone put a
//!    [`FallbackStore`]: then no request waits long for it, and limits may be counted in this
//!    process meanwhile.
//! 6. **Behind a proxy**, say so on each rule by address ([`Rule::behind`]), or all its clients share one
//!    limit. A peer in a private network that sends a forwarding header is warned of in the log, once; a
//!    proxy that comes from elsewhere, or sends none, isn't. A request without a peer address is answered 500 and logged with what to add; never is there one
//!    bucket for all.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use tower_warden::{PeerAddr, Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limit = RateLimitLayer::new(
//!     MemoryRateLimitStore::new(),
//!     [Rule::per_ip("ip", Quota::per_minute(1))],
//! );
//! let service = ServiceBuilder::new()
//!     .layer(limit)
//!     .service(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
//!
//! let request = || {
//!     let peer = PeerAddr::from(([203, 0, 113, 9], 4711));
//!     Request::get("/").extension(peer).body(()).unwrap()
//! };
//! let response = service.clone().oneshot(request()).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["ratelimit"], r#""ip";r=0;t=60"#);
//!
//! let response = service.oneshot(request()).await?;
//! assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(response.headers()["retry-after"], "60");
//! # Ok(()) }
//! ```

mod access;
mod charge;
mod decision;
mod exceeded;
mod fallback;
mod few;
mod future;
mod headers;
mod holds;
mod key;
mod layer;
mod limiter;
mod name;
mod penalty;
mod question;
mod quota;
mod quota_source;
mod rule;
mod service;
pub mod store;
mod verdict;
pub(crate) mod window;

pub use access::{AccessList, InvalidNetwork};
pub use charge::Charge;
pub use decision::Decision;
pub use exceeded::Exceeded;
pub use fallback::{Calls, FallbackStore};
pub use future::ResponseFuture;
pub use headers::LimitHeaders;
pub use key::Key;
pub use layer::{OnFailure, RateLimitLayer};
pub use limiter::{Ask, RateLimited, RateLimiter, Reservation, Standing};
pub use name::{InvalidName, LimiterName};
pub use penalty::Penalty;
pub use quota::{InvalidQuota, Quota};
pub use rule::Rule;
pub use service::RateLimitService;
pub use store::RateLimitStore;
