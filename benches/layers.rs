//! The limiter as a layer, beside other crates' layers in the same run: around a service that does
//! nothing (row 4), and refusing (row 5).
//!
//! What is measured is a request from when it is built until its response is dropped. Each layer finds
//! the client in axum's `ConnectInfo`. What a layer costs is its time less that of `bare`.
//!
//!     cargo bench --bench layers

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
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response, StatusCode};
use tower_warden::{Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};
use tower::{Layer, Service, service_fn};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};

const CLIENTS: usize = 10_000;
/// A limit that is not reached.
const ENDLESS: u32 = 1_000_000_000;

/// Answers 200, at once.
fn bare() -> impl Service<
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
fn tower_warden(limit: u32) -> RateLimitLayer {
    let rule = Rule::per_ip("ip", Quota::per_hour(limit));
    RateLimitLayer::new(MemoryRateLimitStore::new(), [rule])
}

fn tower_governor(
    limit: u32,
) -> GovernorConfigBuilder<
    tower_governor::key_extractor::PeerIpKeyExtractor,
    governor::middleware::NoOpMiddleware,
> {
    let mut builder = GovernorConfigBuilder::default();
    builder.period(Duration::from_secs(3600) / limit).burst_size(limit);
    builder
}

fn axum_governor(limit: u32) -> axum_governor::GovernorLayer<std::net::IpAddr> {
    let limit = NonZeroU32::new(limit).expect("a limit");
    let config = axum_governor::GovernorConfigBuilder::default()
        .with_extractor(axum_governor::PeerIp::default())
        .expect_connect_info()
        .quota_default(axum_governor::Quota::requests_per_hour(limit))
        .finish();
    axum_governor::GovernorLayer::new(config.expect("a configuration"))
}

#[cfg(feature = "tower-rate-limiter")]
fn tower_rate_limiter(
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

fn request(client: usize) -> Request<Body> {
    let address = Ipv4Addr::from((client as u32).wrapping_mul(2_654_435_761));
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 4711))));
    request
}

fn answer<S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>, B>(
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

/// Times a service to which these clients come in turn, after each has come once. The last
/// response tells that it did what the bench says.
fn time<S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>, B>(
    c: &mut Criterion,
    (group, name): (&str, &str),
    mut service: S,
    clients: usize,
    (status, headers): (StatusCode, usize),
) {
    for number in 0..clients {
        answer(&mut service, request(number));
    }
    let last = answer(&mut service, request(0));
    assert_eq!((last.status(), last.headers().len()), (status, headers), "{name}");
    let mut number = 0;
    c.benchmark_group(group).bench_function(name, |b| {
        b.iter(|| {
            number = (number + 1) % clients;
            answer(&mut service, request(number))
        });
    });
}

fn no_headers(c: &mut Criterion) {
    let group = "layer, no headers";
    let ok = |headers| (StatusCode::OK, headers);
    time(c, (group, "bare"), bare(), CLIENTS, ok(0));
    let layer = tower_warden(ENDLESS).without_headers();
    time(c, (group, "tower-warden"), layer.layer(bare()), CLIENTS, ok(0));
    let layer = GovernorLayer::new(tower_governor(ENDLESS).finish().expect("a configuration"));
    time(c, (group, "tower_governor"), layer.layer(bare()), CLIENTS, ok(0));
    #[cfg(feature = "tower-rate-limiter")]
    {
        let layer = tower_rate_limiter(ENDLESS, tower_rate_limiter::RateLimitFields::Disabled);
        time(c, (group, "tower-rate-limiter"), layer.layer(bare()), CLIENTS, ok(0));
    }
}

fn headers(c: &mut Criterion) {
    let group = "layer, headers";
    let ok = |headers| (StatusCode::OK, headers);
    time(c, (group, "bare"), bare(), CLIENTS, ok(0));
    time(c, (group, "tower-warden"), tower_warden(ENDLESS).layer(bare()), CLIENTS, ok(5));
    let config = tower_governor(ENDLESS).use_headers().finish().expect("a configuration");
    let layer = GovernorLayer::new(config);
    time(c, (group, "tower_governor"), layer.layer(bare()), CLIENTS, ok(2));
    time(c, (group, "axum-governor"), axum_governor(ENDLESS).layer(bare()), CLIENTS, ok(5));
    #[cfg(feature = "tower-rate-limiter")]
    {
        let layer = tower_rate_limiter(ENDLESS, tower_rate_limiter::RateLimitFields::Draft11);
        time(c, (group, "tower-rate-limiter"), layer.layer(bare()), CLIENTS, ok(2));
    }
}

fn refusal(c: &mut Criterion) {
    let group = "layer, refused";
    let no = |headers| (StatusCode::TOO_MANY_REQUESTS, headers);
    time(c, (group, "bare"), bare(), 1, (StatusCode::OK, 0));
    time(c, (group, "tower-warden"), tower_warden(1).layer(bare()), 1, no(8));
    let layer = GovernorLayer::new(tower_governor(1).finish().expect("a configuration"));
    time(c, (group, "tower_governor"), layer.layer(bare()), 1, no(2));
    let config = tower_governor(1).use_headers().finish().expect("a configuration");
    let layer = GovernorLayer::new(config);
    time(c, (group, "tower_governor, headers"), layer.layer(bare()), 1, no(4));
    time(c, (group, "axum-governor"), axum_governor(1).layer(bare()), 1, no(7));
    #[cfg(feature = "tower-rate-limiter")]
    {
        let layer = tower_rate_limiter(1, tower_rate_limiter::RateLimitFields::Draft11);
        time(c, (group, "tower-rate-limiter"), layer.layer(bare()), 1, no(3));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = no_headers, headers, refusal
}
criterion_main!(benches);
