//! The forms of a rule beside those that count addresses and users.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_warden::{
    Answer, Key, ManualClock, Quota, RateLimitLayer, Rule, StoreError,
    limit::{AccessList, LimitHeaders, Penalty},
};

use crate::support::{from, header, inner, layer, look, request, send, statuses, stores};

const TWO: Quota = Quota::per_minute(2);

fn said<'r, B>(response: &'r Response<B>, name: &str) -> &'r str {
    header(response.headers(), name).unwrap_or("none")
}

fn with_key(key: &'static str) -> impl Fn() -> http::request::Builder {
    move || request().header("x-key", key)
}

fn by_key() -> Rule {
    Rule::by_key("key", TWO, |request| {
        request.headers.get("x-key").and_then(|key| key.to_str().ok()).map(Key::from)
    })
}

#[tokio::test]
async fn who_has_no_key_is_counted_by_address_unless_told_otherwise() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, by_key()).layer(inner());
        assert_eq!(statuses(&service, with_key("a")).await, [200, 200, 429]);
        assert_eq!(statuses(&service, with_key("b")).await, [200, 200, 429]);
        assert_eq!(statuses(&service, request).await, [200, 200, 429]);
        assert_eq!(statuses(&service, || from([203, 0, 113, 10])).await, [200, 200, 429]);
    }
    for (rule, answers) in [(by_key().or_refuse(), [400; 5]), (by_key().or_exempt(), [200; 5])] {
        let [store, _] = stores(&clock);
        let service = layer(&store, &clock, rule).layer(inner());
        for expected in answers {
            assert_eq!(send(&service, request()).await.status(), expected);
        }
    }
}

#[tokio::test]
async fn when_said_twice_means_both() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let rule = Rule::per_ip("ip", Quota::per_minute(1))
        .when(|request| request.headers.contains_key("a"))
        .when(|request| request.headers.contains_key("b"));
    let service = layer(&store, &clock, rule).layer(inner());
    for (names, answers) in
        [(&["a"][..], [200, 200]), (&["b"], [200, 200]), (&["a", "b"], [200, 429])]
    {
        for expected in answers {
            let request = names.iter().fold(request(), |request, name| request.header(*name, "1"));
            assert_eq!(send(&service, request).await.status(), expected, "{names:?}");
        }
    }
}

#[tokio::test]
async fn off_lets_everything_pass_and_an_option_is_a_layer() {
    let none: Option<RateLimitLayer> = None;
    for limit in [RateLimitLayer::off(), RateLimitLayer::from(none)] {
        let service = limit.layer(inner());
        // Not even a peer address is asked for.
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert!(response.status() == 200 && response.headers().is_empty());
    }
}

#[tokio::test]
async fn option_layer_works_where_bodies_are_made_alike() {
    use axum::{Router, body::Body, routing::get};
    use tower::{ServiceBuilder, util::option_layer};
    for (enabled, expected) in [(true, 500), (false, 200)] {
        let clock = ManualClock::new();
        let [store, _] = stores(&clock);
        let limit = layer(&store, &clock, Rule::per_ip("ip", TWO));
        let limit = ServiceBuilder::new()
            .map_response(|r: http::Response<_>| r.map(Body::new))
            .layer(limit);
        let app: Router =
            Router::new().route("/", get("hello")).layer(option_layer(enabled.then_some(limit)));
        // Without a peer address it is plain whether the layer is there.
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test]
async fn quotas_are_looked_up_and_remembered() {
    for keep_for in [Duration::ZERO, Duration::from_secs(10)] {
        let clock = ManualClock::new();
        for store in stores(&clock) {
            let asked = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&asked);
            let rule = by_key().with_quota_from(keep_for, move |key| {
                let nth = counter.fetch_add(1, Ordering::Relaxed);
                async move {
                    tokio::task::yield_now().await;
                    match &key {
                        key if *key == Key::from("rich") => Ok(Some(Quota::per_minute(9))),
                        key if *key == Key::from("lost") && nth > 0 => {
                            Err(StoreError::unavailable("gone"))
                        }
                        key if *key == Key::from("lost") => Ok(Some(Quota::per_minute(7))),
                        _ => Ok(None),
                    }
                }
            });
            let service = layer(&store, &clock, rule).layer(inner());
            let left = async |key| {
                let response = send(&service, with_key(key)()).await;
                said(&response, "x-ratelimit-limit").to_owned()
            };
            if !keep_for.is_zero() {
                assert_eq!(left("lost").await, "7");
                clock.advance(Duration::from_secs(11));
                assert_eq!(
                    left("lost").await,
                    "7",
                    "what was known counts while it can't be found out"
                );
                asked.store(0, Ordering::Relaxed);
            }
            assert_eq!(
                [left("rich").await, left("rich").await, left("poor").await],
                ["9", "9", "2"]
            );
            let times = asked.load(Ordering::Relaxed);
            assert_eq!(times, if keep_for.is_zero() { 3 } else { 2 });
        }
    }
}

#[tokio::test]
async fn a_cost_may_be_waited_for() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rule = Rule::per_ip("ip", Quota::per_minute(5)).with_cost_from(|_| {
            Answer::pending(async {
                tokio::task::yield_now().await;
                2
            })
        });
        let service = layer(&store, &clock, rule).layer(inner());
        assert_eq!(statuses(&service, request).await, [200, 200, 429]);
    }
}

#[tokio::test]
async fn who_observes_counts_and_refuses_nobody() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rules =
            [Rule::per_ip("ip", Quota::per_minute(4)), Rule::per_ip("trial", TWO).observing()];
        let service = layer(&store, &clock, rules).layer(inner());
        for expected in [200, 200, 200, 200, 429] {
            let response = send(&service, request()).await;
            assert_eq!(response.status(), expected);
            assert!(!said(&response, "ratelimit").contains("trial"));
        }
        let client = std::net::IpAddr::from([203, 0, 113, 9]);
        assert_eq!(look(&store, "trial", client, TWO).await.remaining(), 0);
        assert_eq!(look(&store, "trial", client, Quota::per_minute(3)).await.remaining(), 1);
    }
}

#[tokio::test]
async fn who_observes_refuses_nobody_of_whom_the_store_is_not_asked() {
    let clock = ManualClock::new();
    let list = AccessList::new();
    list.deny_net("203.0.113.9").unwrap();
    let penalty = Penalty::new(0, Duration::from_secs(100), Duration::from_secs(300));
    let strict = Rule::per_ip("ip", Quota::per_minute(1)).with_penalty(penalty.clone());
    let [store, _] = stores(&clock);
    let punishing = layer(&store, &clock, strict).layer(inner());
    assert_eq!(statuses(&punishing, request).await, [200, 429]);
    let later = |_: &tower_warden::RequestHead<'_>| Answer::pending(async { 1 });
    let nobody = || Request::get("/");
    type Call = fn() -> http::request::Builder;
    for (rule, call) in [
        (by_key().or_refuse(), request as Call),
        (by_key().or_per_ip(TWO), nobody as Call),
        (Rule::per_ip("ip", TWO), nobody as Call),
        (Rule::per_ip("ip", TWO).with_access(list), request as Call),
        (Rule::per_ip("ip", TWO).with_penalty(penalty), request as Call),
    ] {
        for store in stores(&clock) {
            let alone = layer(&store, &clock, rule.clone().observing()).layer(inner());
            assert_eq!(statuses(&alone, call).await, [200; 3], "{rule:?}");
            // What comes after it is asked all the same, though it has to be waited for.
            let by_path = Rule::by("path", |request| Some((Key::from(request.uri.path()), TWO)));
            for path in [by_path.clone(), by_path.with_cost_from(later)] {
                store.reset("path".parse().unwrap(), &Key::from("/")).await.unwrap();
                let rules = [rule.clone().observing(), path];
                let both = layer(&store, &clock, rules).layer(inner());
                assert_eq!(statuses(&both, call).await, [200, 200, 429], "{rule:?}");
            }
        }
    }
    // Nor does it make anybody wait for longer who is refused by another.
    let refused = send(&punishing, request()).await;
    assert_eq!(said(&refused, "retry-after"), "200");
}

#[tokio::test]
async fn times_without_end_are_no_panic() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let of_tenant = async |_| Ok(Some(Quota::per_minute(1)));
    let rule = Rule::per_ip("ip", TWO)
        .with_quota_from(Duration::MAX, of_tenant)
        .with_penalty(Penalty::new(0, Duration::MAX, Duration::MAX));
    let service = layer(&store, &clock, rule).layer(inner());
    assert_eq!(statuses(&service, request).await, [200, 429, 429]);
    let rule = Rule::per_ip("other", Quota::per_minute(1)).with_penalty(Penalty::new(
        u32::MAX,
        Duration::MAX,
        Duration::MAX,
    ));
    let service = layer(&store, &clock, rule).layer(inner());
    assert_eq!(statuses(&service, request).await, [200, 429, 429]);
}

#[tokio::test]
async fn who_guards_refuses_and_counts_nothing() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let client = std::net::IpAddr::from([203, 0, 113, 9]);
        let rules =
            [Rule::per_ip("ip", Quota::per_minute(9)), Rule::per_ip("login", TWO).guarding()];
        let service = layer(&store, &clock, rules).layer(inner());
        for left in [8, 7, 6] {
            let response = send(&service, request()).await;
            let list = format!(r#""ip";r={left};t=60, "login";r=2;t=60"#);
            assert_eq!(said(&response, "ratelimit"), list);
        }
        let handler = tower_warden::RateLimiter::new(Arc::clone(&store), "login", TWO);
        let held = handler.ask(client).reserve().await.unwrap();
        handler.take(client).await.unwrap();
        let refused = send(&service, request()).await;
        assert_eq!((refused.status().as_u16(), said(&refused, "retry-after")), (429, "1"));
        assert_eq!(look(&store, "ip", client, Quota::per_minute(9)).await.remaining(), 6);
        held.give_back().await;
        assert_eq!(send(&service, request()).await.status(), 200);
        assert_eq!(look(&store, "login", client, TWO).await.remaining(), 1);
    }
}

#[tokio::test]
async fn lists_exempt_and_refuse_and_may_change_meanwhile() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let list = AccessList::new();
    let rule = Rule::per_ip("ip", Quota::per_minute(1)).with_access(list.clone());
    let service = layer(&store, &clock, rule).layer(inner());
    list.allow_net("203.0.113.9").unwrap();
    for _ in 0..3 {
        let response = send(&service, request()).await;
        assert!(response.status() == 200 && response.headers().is_empty());
    }
    list.deny_net("203.0.113.0/24").unwrap();
    assert_eq!(send(&service, from([203, 0, 113, 10])).await.status(), 403);
    list.remove_net("203.0.113.0/24").unwrap();
    list.remove_net("203.0.113.9").unwrap();
    assert_eq!(statuses(&service, request).await, [200, 429]);
}

#[tokio::test]
async fn who_keeps_knocking_waits_longer_and_what_is_named_is_enough() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let penalty = Penalty::new(1, Duration::from_secs(100), Duration::from_secs(300));
        let rule = Rule::per_ip("ip", Quota::per_minute(1)).with_penalty(penalty);
        let service = layer(&store, &clock, rule).layer(inner());
        let mut waits = Vec::new();
        for _ in 0..5 {
            let response = send(&service, request()).await;
            waits.push(
                response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned()),
            );
        }
        let waits: Vec<_> = waits.iter().map(|wait| wait.as_deref().unwrap_or("")).collect();
        assert_eq!(waits, ["", "60", "100", "200", "300"]);
        clock.advance(Duration::from_secs(299));
        clock.advance(Duration::from_secs(1));
        assert_eq!(send(&service, request()).await.status(), 200);
    }
}

#[tokio::test]
async fn wide_nets_are_counted_along() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let rules = [Rule::per_ip("ip", Quota::per_minute(1)), Rule::per_ipv6_net("net", 48, TWO)];
    let service = layer(&store, &clock, rules).layer(inner());
    let of = |text: &str| {
        let peer: std::net::IpAddr = text.parse().unwrap();
        Request::get("/").extension(tower_warden::PeerAddr::from((peer, 4711)))
    };
    for (client, expected) in [
        ("2001:db8:1:1::1", 200),
        ("2001:db8:1:1::2", 429),
        ("2001:db8:1:2::1", 200),
        ("2001:db8:1:3::1", 429),
        ("2001:db8:2:1::1", 200),
        ("203.0.113.9", 200),
    ] {
        let response = send(&service, of(client)).await;
        assert_eq!(response.status(), expected, "{client}");
        let named = said(&response, "ratelimit").contains("net");
        assert_eq!(named, client.contains(':'));
    }
}

#[tokio::test]
async fn which_headers_are_written_is_chosen() {
    let clock = ManualClock::new();
    for (headers, number) in [
        (LimitHeaders::Both, 5),
        (LimitHeaders::XRateLimit, 3),
        (LimitHeaders::Draft, 2),
        (LimitHeaders::None, 0),
    ] {
        let [store, _] = stores(&clock);
        let limit = layer(&store, &clock, Rule::per_ip("ip", Quota::per_minute(1)));
        let service = limit.with_headers(headers).layer(inner());
        assert_eq!(send(&service, request()).await.headers().len(), number);
        assert_eq!(said(&send(&service, request()).await, "retry-after"), "60");
    }
}
