//! Limits that a handler asks for itself, alone and inside of layers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_warden::{
    ClientIp, ManualClock, PeerAddr, Problem, Quota, RateLimiter, Rule, TrustedProxies,
    limit::{OnFailure, Standing},
};

use crate::support::{header, layer, request, send, stores};

const TWO: Quota = Quota::per_minute(2);

fn said<'r, B>(response: &'r Response<B>, name: &str) -> &'r str {
    header(response.headers(), name).unwrap_or("none")
}

#[tokio::test]
async fn what_one_limit_refuses_the_other_does_not_count() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let a = RateLimiter::new(Arc::clone(&store), "a", TWO);
        let b = RateLimiter::new(store, "b", Quota::per_minute(1));
        let standing = a.ask("k").and(b.ask("k")).take().await.unwrap();
        let left: Vec<_> = standing.decisions().map(|(_, decision)| decision.remaining()).collect();
        assert_eq!(left, [1, 0]);
        let refused = a.ask("k").and(b.ask("k")).take().await.unwrap_err();
        let exceeded = refused.exceeded().unwrap();
        assert_eq!((exceeded.limiter.as_str(), refused.retry_after()), ("b", Some(60)));
        assert_eq!(a.peek("k").await.unwrap().remaining(), 1);
        let heavy = a.ask("k").with_cost(3).take().await.unwrap_err();
        assert_eq!(heavy.retry_after(), None);
        assert!(a.ask("k").with_quota(Quota::per_minute(4)).with_cost(3).take().await.is_ok());
    }
}

#[tokio::test]
async fn what_is_reserved_counts_unless_it_is_given_back() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let a = RateLimiter::new(Arc::clone(&store), "a", TWO);
        let left = async || a.peek("k").await.unwrap().remaining();
        let reserved = a.ask("k").reserve().await.unwrap();
        assert_eq!(left().await, 1);
        let standing = reserved.give_back().await;
        assert_eq!(standing.decisions().next().unwrap().1.remaining(), 2);
        a.ask("k").reserve().await.unwrap().keep().await;
        drop(a.ask("k").reserve().await.unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await; // it is kept in the background
        assert_eq!(a.take("k").await.unwrap_err().retry_after(), Some(60), "none is in flight");
    }
}

#[tokio::test]
async fn a_refusal_is_the_problem_that_layers_answer() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let limiter =
        RateLimiter::new(store, "items", Quota::per_minute(1)).with_clock(Arc::new(clock));
    limiter.take("k").await.unwrap();
    let response = Problem::from(limiter.take("k").await.unwrap_err()).into_http();
    assert_eq!((response.status().as_u16(), said(&response, "retry-after")), (429, "60"));
    assert_eq!(said(&response, "ratelimit"), r#""items";r=0;t=60"#);
    let body = String::from_utf8(response.into_body().to_vec()).unwrap();
    assert!(body.contains(r#""violated-policies":["items"]"#), "{body}");
}

#[tokio::test]
async fn a_layer_around_names_what_the_handler_asked() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let items =
            RateLimiter::new(Arc::clone(&store), "items", TWO).with_clock(Arc::new(clock.clone()));
        let guarded = Rule::per_ip("items", TWO).guarding();
        let rules = [Rule::per_ip("ip", Quota::per_minute(9)), guarded];
        let handler = service_fn(move |_: Request<()>| {
            let items = items.clone();
            async move {
                let client = std::net::IpAddr::from([203, 0, 113, 9]);
                let mut response = Response::new(Empty::<bytes::Bytes>::new());
                match items.take(client).await {
                    Ok(standing) => standing.write(&mut response),
                    Err(_) => *response.status_mut() = StatusCode::TOO_MANY_REQUESTS,
                }
                Ok::<_, Infallible>(response)
            }
        });
        let service = layer(&store, &clock, rules).layer(handler);
        let response = send(&service, request()).await;
        assert_eq!(said(&response, "ratelimit"), r#""ip";r=8;t=60, "items";r=1;t=60"#);
        assert_eq!(said(&response, "x-ratelimit-limit"), "2");
    }
}

#[tokio::test]
async fn a_handler_may_answer_with_it_and_know_the_client() {
    let clock = ManualClock::new();
    let [store, _] = stores(&clock);
    let limiter =
        RateLimiter::new(store, "hello", Quota::per_minute(1)).with_clock(Arc::new(clock));
    let hello = move |client: ClientIp| async move {
        let standing: Standing = limiter.take(client).await?;
        Ok::<_, Problem>((standing, client.addr().to_string()))
    };
    let app: Router = Router::new().route("/", get(hello));
    let request = || {
        let peer = PeerAddr::from(([203, 0, 113, 9], 1));
        Request::get("/").extension(peer).body(Body::empty()).unwrap()
    };
    let alone = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(alone.status(), 500, "nobody said which proxies are trusted");
    let app = app.layer(axum::Extension(TrustedProxies::none()));
    let response = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(said(&response, "ratelimit"), r#""hello";r=0;t=60"#);
    assert_eq!(app.oneshot(request()).await.unwrap().status(), 429);
}

#[tokio::test]
async fn axums_mocked_peer_counts() {
    use axum::extract::connect_info::MockConnectInfo;
    let app: Router = Router::new()
        .route("/", get(async |client: ClientIp| client.to_string()))
        .layer(axum::Extension(TrustedProxies::none()))
        .layer(MockConnectInfo(std::net::SocketAddr::from(([198, 51, 100, 1], 1))));
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(&body[..], b"198.51.100.1");
}

#[tokio::test]
async fn without_a_decision_the_choice_decides() {
    use crate::store_failure::Gone;
    let limiter = RateLimiter::new(Gone, "a", TWO);
    assert_eq!(limiter.take("k").await.unwrap().decisions().count(), 0);
    let refused = limiter.with_on_failure(OnFailure::Deny).take("k").await.unwrap_err();
    assert_eq!(Problem::from(refused).status(), 503);
}
