//! The limiter as a layer, beside other crates' layers in the same run: around a service that does
//! nothing (row 4), and refusing (row 5).
//!
//! What is measured is a request from when it is built until its response is dropped. Each layer finds
//! the client in axum's `ConnectInfo`. What a layer costs is its time less that of `bare`.
//!
//!     cargo bench --bench layers

#[path = "support/layers.rs"]
mod layers;

use std::time::Duration;

use axum::body::Body;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_governor::GovernorLayer;

#[cfg(feature = "tower-rate-limiter")]
use layers::tower_rate_limiter;
use layers::{
    CLIENTS, ENDLESS, answer, axum_governor, bare, request, tower_governor, tower_warden,
};

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
