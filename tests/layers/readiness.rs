//! The service that was polled ready is the one that is called (`tower::Service::call`).

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{
    Layer, Service, ServiceExt,
    limit::{ConcurrencyLimit, ConcurrencyLimitLayer},
};
use tower_warden::{
    Identity, ManualClock, Quota, RateLimitLayer, RequireAuth, RequireRole, ResponseBody, Role,
    UserId, limit::Rule,
};

use crate::support::{Gateway, Inner, Later, inner, memory, request};

/// Panics where it is called without having been polled ready: it, and no clone of it.
#[derive(Default)]
struct Strict {
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        ready(Ok(Response::default()))
    }
}

type Answered = Result<Response<ResponseBody<Full<Bytes>>>, Infallible>;

/// That this layer, around any service, passes readiness on; `request` is one that it admits.
async fn keeps_ready<L>(layer: L, request: impl Fn() -> Request<()>)
where
    L: Layer<Strict> + Layer<ConcurrencyLimit<Inner>>,
    <L as Layer<Strict>>::Service:
        Service<Request<()>, Error = Infallible, Future: Future<Output = Answered>>,
    <L as Layer<ConcurrencyLimit<Inner>>>::Service:
        Service<Request<()>, Error = Infallible, Future: Future<Output = Answered>>,
{
    let mut service = Layer::<Strict>::layer(&layer, Strict::default());
    let first = service.ready().await.unwrap().call(request());
    let second = service.ready().await.unwrap().call(request());
    assert_eq!(second.await.unwrap().status(), StatusCode::OK);
    assert_eq!(first.await.unwrap().status(), StatusCode::OK);

    let mut service = layer.layer(ConcurrencyLimitLayer::new(1).layer(inner()));
    let cx = &mut Context::from_waker(Waker::noop());
    let first = service.ready().await.unwrap().call(request());
    assert!(service.poll_ready(cx).is_pending(), "the one slot is the first call's");
    assert_eq!(first.await.unwrap().status(), StatusCode::OK);
    let dropped = service.ready().await.unwrap().call(request());
    drop(dropped);
    assert!(service.poll_ready(cx).is_ready(), "a dropped call leaves its slot");
}

/// That a refusal leaves no slot taken that another call would need.
async fn refusal_leaves_its_slot<L>(layer: L)
where
    L: Layer<ConcurrencyLimit<Inner>>,
    L::Service: Service<Request<()>, Error = Infallible, Future: Future<Output = Answered>>,
{
    let mut service = layer.layer(ConcurrencyLimitLayer::new(1).layer(inner()));
    for _ in 0..2 {
        let refused = service.ready().await.unwrap().call(Request::default()).await.unwrap();
        assert_ne!(refused.status(), StatusCode::OK);
    }
}

fn known() -> Request<()> {
    request().header("x-user", "ada").body(()).unwrap()
}

#[tokio::test]
async fn require_auth_calls_the_service_that_was_ready() {
    keeps_ready(RequireAuth::new(Gateway), known).await;
    keeps_ready(RequireAuth::new(Later(Gateway)), known).await;
    keeps_ready(RequireAuth::new(Later(Gateway)).identify_only(), Request::default).await;
    refusal_leaves_its_slot(RequireAuth::new(Gateway)).await;
    refusal_leaves_its_slot(RequireAuth::new(Later(Gateway))).await;
}

#[tokio::test]
async fn require_role_calls_the_service_that_was_ready() {
    let layer = RequireRole::any_of([Role::EDITOR]);
    let editor = || {
        let caller = Identity::new(UserId::from("ada"), Role::EDITOR);
        request().extension(caller).body(()).unwrap()
    };
    keeps_ready(layer.clone(), editor).await;
    refusal_leaves_its_slot(layer).await;
}

#[tokio::test]
async fn rate_limit_calls_the_service_that_was_ready() {
    let clock = ManualClock::new();
    let rules = || [Rule::per_ip("ip", Quota::per_minute(100))];
    let anyone = || request().body(()).unwrap();
    keeps_ready(RateLimitLayer::new(memory(&clock), rules()), anyone).await;
    keeps_ready(RateLimitLayer::new(Later(memory(&clock)), rules()), anyone).await;

    let never = || [Rule::by("all", |_| Some(("".into(), Quota::per_minute(1)))).with_cost(|_| 2)];
    refusal_leaves_its_slot(RateLimitLayer::new(memory(&clock), never())).await;
    refusal_leaves_its_slot(RateLimitLayer::new(Later(memory(&clock)), never())).await;
}
