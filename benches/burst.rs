//! The adversarial burst: a full limit at the very end of a window, then as many requests as are
//! let through. Prints what each limiter of "100 a minute" admitted in its worst 60 seconds.
//!
//!     cargo run --release --bin burst

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{RateLimiter, clock::FakeRelativeClock};
use portcullis::{
    Answer, ManualClock, Quota,
    limit::{RateLimitStore, Take},
    store::memory::MemoryRateLimitStore,
};

const LIMIT: u32 = 100;
const MINUTE: u64 = 60_000;

/// Whether a request at this millisecond is admitted.
type Limiter = Box<dyn FnMut(u64) -> bool>;

fn portcullis() -> Limiter {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    let quota = Quota::per_minute(LIMIT);
    let take = Take { limiter: "ip", key: "client".into(), quota, cost: 1, hold: false };
    let mut last = 0;
    Box::new(move |now| {
        clock.advance(Duration::from_millis(now - last));
        last = now;
        match store.take(std::slice::from_ref(&take)) {
            Answer::Ready(Ok(taken)) => taken[0].decision.allowed,
            _ => false,
        }
    })
}

/// GCRA, a token bucket; tower_governor is this, behind a layer.
fn governor() -> Limiter {
    let clock = FakeRelativeClock::default();
    let quota = governor::Quota::per_minute(NonZeroU32::new(LIMIT).expect("a limit"));
    let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
    let mut last = 0;
    Box::new(move |now| {
        clock.advance(Duration::from_millis(now - last));
        last = now;
        limiter.check().is_ok()
    })
}

/// The count of this window, and a part of the last one's: Cloudflare, Upstash, Kong.
fn two_counters() -> Limiter {
    let (mut window, mut count, mut before) = (0, 0.0, 0.0);
    Box::new(move |now| {
        let this = now / MINUTE;
        if this > window {
            before = if this == window + 1 { count } else { 0.0 };
            (window, count) = (this, 0.0);
        }
        let part_left = 1.0 - (now % MINUTE) as f64 / MINUTE as f64;
        let admitted = before * part_left + count < f64::from(LIMIT);
        count += f64::from(u8::from(admitted));
        admitted
    })
}

fn fixed_window() -> Limiter {
    let (mut window, mut count) = (0, 0);
    Box::new(move |now| {
        if now / MINUTE > window {
            (window, count) = (now / MINUTE, 0);
        }
        let admitted = count < LIMIT;
        count += u32::from(admitted);
        admitted
    })
}

/// The most that was admitted in any 60 seconds.
fn worst_window(mut limiter: Limiter) -> usize {
    let burst = std::iter::repeat_n(2 * MINUTE - 1, LIMIT as usize);
    let greedy = 2 * MINUTE..5 * MINUTE;
    let admitted: Vec<u64> = burst.chain(greedy).filter(|now| limiter(*now)).collect();
    let within = |(i, end): (usize, &u64)| {
        i + 1 - admitted.partition_point(|at| at + MINUTE <= *end)
    };
    admitted.iter().enumerate().map(within).max().unwrap_or(0)
}

fn main() {
    println!("admitted in the worst 60 seconds, of {LIMIT} a minute:");
    for (name, limiter) in [
        ("portcullis", portcullis()),
        ("governor, tower_governor", governor()),
        ("two counters", two_counters()),
        ("fixed window", fixed_window()),
    ] {
        println!("{:>6}  {name}", worst_window(limiter));
    }
}
