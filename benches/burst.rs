//! The adversarial burst: a full limit at the very end of a window, then as many requests as are
//! let through. Prints what each limiter of 100 admitted in its worst window.
//!
//!     cargo run --release --bin burst
//!
//! The time of most is moved. tower_governor's can't be, so its limit is 100 a second, its layer is
//! driven for three seconds, and what it admitted is told by the machine's clock.

#[path = "support/figures.rs"]
mod figures;

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    num::NonZeroU32,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use axum::{body::Body, extract::ConnectInfo};
use governor::{RateLimiter, clock::FakeRelativeClock};
use http::{Request, Response};
use serde_json::json;
use tower::{Layer, Service, service_fn};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};
use tower_warden::{
    ManualClock, Quota,
    limit::{RateLimitStore, store::Take},
    store::memory::MemoryRateLimitStore,
};

const LIMIT: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// Whether a request at this time is admitted.
type Limiter = Box<dyn FnMut(Duration) -> bool>;

fn tower_warden() -> Limiter {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    let quota = Quota::per_minute(LIMIT);
    let take = Take::new("ip".parse().expect("a name"), "client", quota);
    let mut last = Duration::ZERO;
    Box::new(move |now| {
        clock.advance(now - last);
        last = now;
        let taken = store.take_now(&take).and_then(Result::ok);
        taken.is_some_and(|taken| taken.decision.is_allowed())
    })
}

/// GCRA, a token bucket.
fn governor() -> Limiter {
    let clock = FakeRelativeClock::default();
    let quota = governor::Quota::per_minute(NonZeroU32::new(LIMIT).expect("a limit"));
    let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
    let mut last = Duration::ZERO;
    Box::new(move |now| {
        clock.advance(now - last);
        last = now;
        limiter.check().is_ok()
    })
}

/// The count of this window, and a part of the last one's: Cloudflare, Upstash, Kong.
fn two_counters() -> Limiter {
    let (mut window, mut count, mut before) = (0, 0.0, 0.0);
    Box::new(move |now| {
        let this = now.as_secs() / MINUTE.as_secs();
        if this > window {
            before = if this == window + 1 { count } else { 0.0 };
            (window, count) = (this, 0.0);
        }
        let part_left = (this + 1) as f64 - now.as_secs_f64() / MINUTE.as_secs_f64();
        let admitted = before * part_left + count < f64::from(LIMIT);
        count += f64::from(u8::from(admitted));
        admitted
    })
}

fn fixed_window() -> Limiter {
    let (mut window, mut count) = (0, 0);
    Box::new(move |now| {
        let this = now.as_secs() / MINUTE.as_secs();
        if this > window {
            (window, count) = (this, 0);
        }
        let admitted = count < LIMIT;
        count += u32::from(admitted);
        admitted
    })
}

/// When requests are admitted whose time is moved: a full limit in the last millisecond of a
/// window, then one each millisecond.
fn by_moved_time(mut limiter: Limiter) -> Vec<(Duration, Duration)> {
    let millis = Duration::from_millis;
    let burst = std::iter::repeat_n(millis(119_999), LIMIT as usize);
    let greedy = (120_000..300_000).map(millis);
    burst.chain(greedy).filter(|now| limiter(*now)).map(|now| (now, now)).collect()
}

/// The same of tower_governor's layer by the machine's clock, a window being a second: when each
/// request that was admitted was sent and when it was answered.
fn tower_governor() -> Vec<(Duration, Duration)> {
    let config = GovernorConfigBuilder::default()
        .period(Duration::from_secs(1) / LIMIT)
        .burst_size(LIMIT)
        .finish()
        .expect("a configuration");
    let inner =
        service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let mut service = GovernorLayer::new(config).layer(inner);
    let mut admits = || {
        let mut request = Request::new(Body::empty());
        let client = SocketAddr::from(([203, 0, 113, 9], 4711));
        request.extensions_mut().insert(ConnectInfo(client));
        match pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => response.status().is_success(),
            _ => false,
        }
    };
    let begun = Instant::now();
    let mut admitted = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        let sent = begun.elapsed();
        if admits() {
            admitted.push((sent, begun.elapsed()));
        } else {
            thread::sleep(Duration::from_micros(100));
        }
    }
    admitted
}

/// The most requests that were sent and answered within a window, wherever it begins.
fn worst(admitted: &[(Duration, Duration)], window: Duration) -> usize {
    let within = |(sent, _): &(Duration, Duration)| {
        admitted.iter().filter(|(s, answered)| s >= sent && *answered < *sent + window).count()
    };
    admitted.iter().map(within).max().unwrap_or(0)
}

fn main() {
    let mut worsts = serde_json::Map::new();
    println!("admitted in the worst window, of {LIMIT}:");
    for (name, admitted, window) in [
        ("tower-warden", by_moved_time(tower_warden()), MINUTE),
        ("governor", by_moved_time(governor()), MINUTE),
        ("tower_governor", tower_governor(), Duration::from_secs(1)),
        ("two counters", by_moved_time(two_counters()), MINUTE),
        ("fixed window", by_moved_time(fixed_window()), MINUTE),
    ] {
        let worst = worst(&admitted, window);
        println!("{worst:>6}  {name}");
        worsts.insert(name.to_owned(), json!(worst));
    }
    figures::write("burst", worsts.into());
}
