//! Whom `RateLimitLayer` counts, by which quota, and what it says.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceBuilder};
use tower_warden::{
    ForwardedHeader, ManualClock, Plan, Quota, RateLimitLayer, RefusalHook, RefusalReason,
    RequireAuth, Role, TrustedProxies, limit::Rule,
};

use crate::support::{
    Gateway, from, header, inner, layer, limits, look, memory, problem, request, send, statuses,
    stores,
};

const ONE: Quota = Quota::per_minute(1);
const TWO: Quota = Quota::per_minute(2);

#[tokio::test]
async fn each_address_has_its_own_limit() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [Rule::per_ip("ip", TWO)]).layer(inner());
        assert_eq!(statuses(&service, request).await, [200, 200, 429]);
        assert_eq!(statuses(&service, || from([203, 0, 113, 10])).await, [200]);
        clock.advance(Duration::from_secs(60));
        assert_eq!(statuses(&service, request).await, [200, 200, 429]);
    }
}

#[tokio::test]
async fn behind_a_proxy_its_clients_are_told_apart() {
    let clock = ManualClock::new();
    let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["10.0.0.0/8"]).unwrap();
    let [store, _] = stores(&clock);
    let service = layer(&store, &clock, [Rule::per_ip("ip", ONE).behind(proxies)]).layer(inner());
    let client = |ip: &str| from([10, 0, 0, 1]).header("x-forwarded-for", ip);
    assert_eq!(statuses(&service, || client("198.51.100.1")).await, [200, 429]);
    assert_eq!(statuses(&service, || client("198.51.100.2")).await, [200, 429]);
}

#[tokio::test]
async fn users_are_limited_by_their_plan_and_admins_are_not() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rule = Rule::per_user("user", Quota::per_minute(30))
            .with_plan(Plan::FREE, Quota::per_minute(6))
            .with_plan(Plan::PAID, Quota::per_minute(60))
            .exempt_role(Role::ADMIN);
        let service = ServiceBuilder::new()
            .layer(RequireAuth::new(Gateway).identify_only())
            .layer(layer(&store, &clock, [rule]))
            .service(inner());
        for (user, plan, role, said) in [
            ("ada", None, "viewer", r#""user";r=29;t=60"#),
            ("bob", Some("free"), "viewer", r#""user";r=5;t=60"#),
            ("eve", Some("paid"), "editor", r#""user";r=59;t=60"#),
            ("kim", Some("unheard of"), "viewer", r#""user";r=29;t=60"#),
            ("root", Some("free"), "admin", "none"),
        ] {
            let mut caller = request().header("x-user", user).header("x-role", role);
            if let Some(plan) = plan {
                caller = caller.header("x-plan", plan);
            }
            assert_eq!(limits(&send(&service, caller).await), said, "{user}");
        }
        let bob = || request().header("x-user", "bob").header("x-plan", "free");
        assert_eq!(statuses(&service, bob).await, [200, 200, 200, 200, 200, 429]);
        assert_eq!(limits(&send(&service, request()).await), "none", "nobody is no user");
    }
}

#[tokio::test]
async fn a_closure_may_choose_whom_to_count() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rule = Rule::by("key", |request| {
            let key = header(request.headers, "x-api-key")?;
            Some((key.into(), if key == "gold" { TWO } else { ONE }))
        });
        let service = layer(&store, &clock, [rule]).layer(inner());
        assert_eq!(statuses(&service, || request().header("x-api-key", "a")).await, [200, 429]);
        assert_eq!(statuses(&service, || request().header("x-api-key", "gold")).await, [200, 200]);
        assert_eq!(statuses(&service, request).await, [200, 200, 200]);
    }
}

#[tokio::test]
async fn a_rule_may_apply_to_some_requests_only() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let rule = Rule::per_ip("ip", ONE).when(|request| request.method == Method::POST);
    let service = layer(&store, &clock, [rule]).layer(inner());
    assert_eq!(statuses(&service, || request().method(Method::POST)).await, [200, 429]);
    let exempt = send(&service, request()).await;
    assert_eq!((exempt.status(), limits(&exempt)), (StatusCode::OK, "none"));
}

#[tokio::test]
async fn requests_weigh_what_the_rule_says() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rule = Rule::per_ip("ip", Quota::per_minute(5))
            .with_cost(|request| header(request.headers, "x-cost").unwrap().parse().unwrap());
        let service = layer(&store, &clock, [rule]).layer(inner());
        for (cost, status, said, retry_after) in [
            (0, 200, r#""ip";r=5;t=60"#, None),
            (3, 200, r#""ip";r=2;t=60"#, None),
            (3, 429, r#""ip";r=2;t=60"#, Some("60")),
            (6, 429, r#""ip";r=2;t=60"#, None),
            (0, 200, r#""ip";r=2;t=60"#, None),
            (2, 200, r#""ip";r=0;t=60"#, None),
            (0, 200, r#""ip";r=0;t=60"#, None),
            (1, 429, r#""ip";r=0;t=60"#, Some("60")),
        ] {
            let response = send(&service, request().header("x-cost", cost)).await;
            assert_eq!((response.status().as_u16(), limits(&response)), (status, said), "{cost}");
            assert_eq!(header(response.headers(), "retry-after"), retry_after, "{cost}");
        }
        let never = send(&service, request().header("x-cost", 6)).await;
        assert_eq!(problem(never).await["detail"], "The request weighs more than the limit.");
    }
}

#[tokio::test]
async fn what_one_rule_refuses_no_other_counts() {
    let clock = ManualClock::new();
    let hour = Quota::per_hour(9);
    for store in stores(&clock) {
        for (name, rules) in [
            ("refused first", [Rule::per_ip("minute", ONE), Rule::per_ip("hour", hour)]),
            ("refused last", [Rule::per_ip("hour", hour), Rule::per_ip("minute", ONE)]),
        ] {
            let service = layer(&store, &clock, rules).layer(inner());
            assert_eq!(statuses(&service, request).await, [200, 429, 429], "{name}");
            let client = tower_warden::ClientIp::from(std::net::IpAddr::from([203, 0, 113, 9]));
            assert_eq!(look(&store, "hour", client, hour).await.remaining(), 8, "{name}");
            clock.advance(hour.window());
        }
    }
}

#[tokio::test]
async fn of_two_that_refuse_both_are_named_and_the_longest_speaks() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        clock.set(UNIX_EPOCH);
        let rules = [
            Rule::per_ip("hour", Quota::per_hour(1)),
            Rule::per_ip("minute", ONE),
            Rule::per_ip("day", Quota::new(9, Duration::from_secs(86_400)).unwrap()),
        ];
        let service = layer(&store, &clock, rules).layer(inner());
        send(&service, request()).await;
        clock.advance(Duration::from_millis(1_500));
        let response = send(&service, request()).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let said = |name| header(response.headers(), name).unwrap();
        assert_eq!(said("retry-after"), "3599");
        assert_eq!(said("x-ratelimit-limit"), "1");
        assert_eq!(said("x-ratelimit-remaining"), "0");
        assert_eq!(said("x-ratelimit-reset"), "3600");
        assert_eq!(
            said("ratelimit-policy"),
            r#""hour";q=1;w=3600, "minute";q=1;w=60, "day";q=9;w=86400"#
        );
        assert_eq!(said("ratelimit"), r#""hour";r=0;t=3599, "minute";r=0;t=59, "day";r=8;t=86399"#);
        let problem = problem(response).await;
        assert_eq!(problem["code"], "rate_limited");
        assert_eq!(problem["detail"], "Too many requests. Try again in 3599 seconds.");
        assert_eq!(problem["violated-policies"], serde_json::json!(["hour", "minute"]));
        assert_eq!(
            problem["type"],
            "https://iana.org/assignments/http-problem-types#quota-exceeded"
        );
    }
}

#[tokio::test]
async fn a_request_sent_at_retry_after_is_admitted() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service =
            layer(&store, &clock, [Rule::per_ip("ip", Quota::per_second(1))]).layer(inner());
        send(&service, request()).await;
        clock.advance(Duration::from_millis(1));
        let refused = send(&service, request()).await;
        assert_eq!(header(refused.headers(), "retry-after"), Some("1"));
        let detail = &problem(refused).await["detail"];
        assert_eq!(detail, "Too many requests. Try again in 1 second.");
        clock.advance(Duration::from_secs(1));
        assert_eq!(statuses(&service, request).await, [200]);
    }
}

#[tokio::test]
async fn every_response_of_a_limited_request_has_the_headers() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [Rule::per_ip("ip", TWO)]).layer(inner());
        for (answer, remaining) in [("200", "1"), ("500", "0"), ("200", "0")] {
            let response = send(&service, request().header("x-answer", answer)).await;
            let said = |name| header(response.headers(), name);
            assert_eq!(said("x-ratelimit-limit"), Some("2"));
            assert_eq!(said("x-ratelimit-remaining"), Some(remaining));
            assert_eq!(said("x-ratelimit-reset"), Some("1767225660"));
            assert_eq!(said("ratelimit-policy"), Some(r#""ip";q=2;w=60"#));
            assert_eq!(said("ratelimit"), Some(&*format!(r#""ip";r={remaining};t=60"#)));
        }
    }
}

#[tokio::test]
async fn headers_that_the_service_wrote_itself_are_replaced() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let service = layer(&store, &clock, [Rule::per_ip("ip", TWO)]).layer(tower::service_fn(
        async |_: Request<()>| {
            Response::builder().header("ratelimit", "mine").body(Full::<Bytes>::default())
        },
    ));
    assert_eq!(limits(&send(&service, request()).await), r#""ip";r=1;t=60"#);
}

#[tokio::test]
async fn an_error_of_the_service_passes_as_it_is() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [Rule::per_ip("ip", TWO)]).layer(tower::service_fn(
            async |_: Request<()>| Err::<Response<Full<Bytes>>, _>("the very error"),
        ));
        let request = request().body(()).unwrap();
        let answer = tower::ServiceExt::oneshot(service, request).await;
        assert_eq!(answer.unwrap_err(), "the very error");
    }
}

#[tokio::test]
async fn a_hook_may_word_the_refusal_and_the_headers_come_all_the_same() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let rules = [Rule::per_ip("a", ONE), Rule::per_ip("b", Quota::per_hour(1))];
        let layer =
            layer(&store, &clock, rules).with_refusal(RefusalHook::new(|refusal, problem| {
                let RefusalReason::Exceeded(exceeded) = refusal.reason else {
                    panic!("{refusal:?}")
                };
                assert_eq!((exceeded.limiter.as_str(), exceeded.retry_after), ("b", Some(3600)));
                assert_eq!(exceeded.violated, ["a", "b"]);
                assert_eq!(problem.code(), "rate_limited");
                let response = Response::builder().status(503).header("retry-after", "0");
                response.header("x-mine", "yes").body(()).unwrap()
            }));
        let service = layer.layer(inner());
        assert_eq!(statuses(&service, request).await, [200, 503]);
        let response = send(&service, request()).await;
        let said = |name| header(response.headers(), name);
        assert_eq!(said("x-mine"), Some("yes"));
        assert_eq!(said("retry-after"), Some("3600"));
        assert_eq!(said("ratelimit"), Some(r#""a";r=0;t=60, "b";r=0;t=3600"#));
    }
}

#[tokio::test]
async fn without_a_peer_address_nobody_shares_a_bucket() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [Rule::per_ip("ip", ONE)]).layer(inner());
        for _ in 0..3 {
            let response = send(&service, Request::builder()).await;
            assert_eq!(limits(&response), "none");
            assert_eq!(problem(response).await["code"], "internal");
        }
        assert_eq!(statuses(&service, request).await, [200, 429]);
    }
}

#[tokio::test]
async fn a_layer_without_rules_limits_nobody() {
    let service = RateLimitLayer::new(memory(&ManualClock::new()), []).layer(inner());
    let response: Response<_> = send(&service, Request::builder()).await;
    assert_eq!((response.status(), limits(&response)), (StatusCode::OK, "none"));
}

#[tokio::test]
async fn services_of_one_layer_share_its_counts() {
    let limit = RateLimitLayer::new(memory(&ManualClock::new()), [Rule::per_ip("ip", ONE)]);
    let (one, other) = (limit.layer(inner()), limit.layer(inner()));
    assert_eq!(statuses(&one, request).await, [200]);
    assert_eq!(statuses(&other, request).await, [429]);
}

#[tokio::test]
async fn the_last_quota_named_for_a_plan_counts() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let rule = Rule::per_user("user", ONE).with_plan(Plan::FREE, ONE).with_plan(Plan::FREE, TWO);
    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(layer(&store, &clock, [rule]))
        .service(inner());
    let caller = request().header("x-user", "ada").header("x-plan", "free");
    assert_eq!(limits(&send(&service, caller).await), r#""user";r=1;t=60"#);
}

#[test]
#[should_panic(expected = "named \"ip\"")]
fn two_rules_of_one_name_fail_when_built() {
    let rules = [Rule::per_ip("ip", ONE), Rule::per_ip("ip", TWO)];
    _ = RateLimitLayer::new(memory(&ManualClock::new()), rules);
}

#[test]
fn choices_that_a_rule_does_not_have_fail_when_built() {
    let fails = |build: fn() -> Rule| std::panic::catch_unwind(build).is_err();
    assert!(fails(|| Rule::per_user("user", ONE).behind(TrustedProxies::none())));
    assert!(fails(|| Rule::per_ip("ip", ONE).with_plan(Plan::FREE, TWO)));
    assert!(fails(|| Rule::by("key", |_| None).exempt_role(Role::ADMIN)));
    assert!(fails(|| Rule::per_ip("Ünder one name", ONE)));
    assert!(fails(|| Rule::per_ip("", ONE)));
}
