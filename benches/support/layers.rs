//! Layers that are compared, around a service that does nothing, and requests for them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use http::{Request, Response};
use tower::{Service, service_fn};
use tower_governor::governor::GovernorConfigBuilder;
use tower_warden::{Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};

pub const CLIENTS: usize = 10_000;
/// A limit that is not reached.
pub const ENDLESS: u32 = 1_000_000_000;

/// Answers 200, at once.
pub fn bare() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Ready<Result<Response<Body>, Infallible>>,
> + Clone
+ Send
+ 'static {
    service_fn(|_: Request<Body>| ready(Ok(Response::new(Body::empty()))))
}

/// Ours counts an hour, so that a refused client stays so for as long as the bench runs.
pub fn tower_warden(limit: u32) -> RateLimitLayer {
    let rule = Rule::per_ip("ip", Quota::per_hour(limit));
    RateLimitLayer::new(MemoryRateLimitStore::new(), [rule])
}

pub fn tower_governor(
    limit: u32,
) -> GovernorConfigBuilder<
    tower_governor::key_extractor::PeerIpKeyExtractor,
    governor::middleware::NoOpMiddleware,
> {
    let mut builder = GovernorConfigBuilder::default();
    builder.period(Duration::from_secs(3600) / limit).burst_size(limit);
    builder
}

pub fn axum_governor(limit: u32) -> axum_governor::GovernorLayer<std::net::IpAddr> {
    let limit = NonZeroU32::new(limit).expect("a limit");
    let config = axum_governor::GovernorConfigBuilder::default()
        .with_extractor(axum_governor::PeerIp::default())
        .expect_connect_info()
        .quota_default(axum_governor::Quota::requests_per_hour(limit))
        .finish();
    axum_governor::GovernorLayer::new(config.expect("a configuration"))
}

#[cfg(feature = "tower-rate-limiter")]
pub fn tower_rate_limiter(
    limit: u32,
    fields: tower_rate_limiter::RateLimitFields,
) -> tower_rate_limiter::RateLimitLayer<
    tower_rate_limiter::IpKeyExtractor,
    tower_rate_limiter::MemoryStore,
    u64,
> {
    tower_rate_limiter::RateLimitLayer::builder(tower_rate_limiter::IpKeyExtractor::new())
        .limit(limit.into())
        .window(Duration::from_secs(3600))
        .with_store(tower_rate_limiter::MemoryStore::new())
        .rate_limit_fields(fields)
        .build()
        .expect("a policy")
}

pub fn request(client: usize) -> Request<Body> {
    let address = Ipv4Addr::from((client as u32).wrapping_mul(2_654_435_761));
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 4711))));
    request
}

pub fn answer<S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>, B>(
    service: &mut S,
    request: Request<Body>,
) -> Response<B> {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(response) => response.expect("a response"),
        Poll::Pending => panic!("no layer here waits for anything"),
    }
}
