//! What the layers stand around, what they ask, and what is sent to them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request::Builder};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::task::yield_now;
use tower::{Service, ServiceExt, util::ServiceFn};
use tower_warden::{
    Answer, Identity, ManualClock, PeerAddr, Plan, Quota, RateLimitLayer, RequestHead, Role,
    StoreError, UserId,
    auth::{AuthError, Authenticate},
    limit::{
        Decision, Key, LimiterName, RateLimitStore, Rule,
        store::{Decisions, Hold, Take},
    },
    store::memory::MemoryRateLimitStore,
};

/// Answers with the status that `x-answer` asks for, or 200, and the body `inner`.
pub(crate) type Inner =
    ServiceFn<fn(Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>>>;

pub(crate) fn inner() -> Inner {
    tower::service_fn(|request| {
        let mut response = Response::new(Full::from("inner"));
        if let Some(status) = request.headers().get("x-answer") {
            *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
        }
        ready(Ok(response))
    })
}

/// A request from 203.0.113.9.
pub(crate) fn request() -> Builder {
    from([203, 0, 113, 9])
}

pub(crate) fn from(ip: [u8; 4]) -> Builder {
    Request::get("/").extension(PeerAddr::from((ip, 4711)))
}

pub(crate) async fn send<S, B>(service: &S, request: Builder) -> Response<B>
where
    S: Service<Request<()>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    service.clone().oneshot(request.body(()).unwrap()).await.unwrap()
}

/// Sends so many, and tells the status of each.
pub(crate) async fn statuses<S, B, const N: usize>(
    service: &S,
    request: impl Fn() -> Builder,
) -> [u16; N]
where
    S: Service<Request<()>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    let mut statuses = [0; N];
    for status in &mut statuses {
        *status = send(service, request()).await.status().as_u16();
    }
    statuses
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    assert!(headers.get_all(name).iter().count() <= 1, "{name} stands there twice");
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// `RateLimit`: what remains by each limiter.
pub(crate) fn limits<B>(response: &Response<B>) -> &str {
    header(response.headers(), "ratelimit").unwrap_or("none")
}

pub(crate) async fn problem<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Value {
    assert_eq!(header(response.headers(), "content-type"), Some("application/problem+json"));
    assert_eq!(header(response.headers(), "cache-control"), Some("no-store"));
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], status);
    problem
}

/// Believes `x-user`, `x-role` and `x-plan`.
#[derive(Clone, Debug)]
pub(crate) struct Gateway;

impl Authenticate for Gateway {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let text = |name| header(request.headers, name);
        let Some(user) = text("x-user") else { return Answer::Ready(Err(AuthError::Missing)) };
        let role = text("x-role").map_or(Role::VIEWER, Role::from);
        let caller = Identity::new(UserId::from(user), role);
        Answer::Ready(Ok(match text("x-plan") {
            Some(plan) => caller.with_plan(Plan::from(plan)),
            None => caller,
        }))
    }
}

/// Answers as the other does, but later.
#[derive(Clone, Debug)]
pub(crate) struct Later<T>(pub(crate) T);

impl<A: Authenticate> Authenticate for Later<A> {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let answer = self.0.authenticate(request);
        Answer::pending(async {
            yield_now().await;
            answer.await
        })
    }
}

impl<S: RateLimitStore + Clone> RateLimitStore for Later<S> {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        let (store, takes) = (self.0.clone(), takes.to_vec());
        Answer::pending(async move {
            yield_now().await;
            store.take(&takes).await
        })
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let store = self.0.clone();
        Answer::pending(async move {
            yield_now().await;
            store.settle(hold, keep).await
        })
    }

    fn reset(&self, limiter: LimiterName, key: &Key) -> Answer<Result<(), StoreError>> {
        self.0.reset(limiter, key)
    }
}

pub(crate) fn memory(clock: &ManualClock) -> MemoryRateLimitStore {
    MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()))
}

/// Empty stores: one that answers at once, one that answers later.
pub(crate) fn stores(clock: &ManualClock) -> [Arc<dyn RateLimitStore>; 2] {
    [Arc::new(memory(clock)), Arc::new(Later(memory(clock)))]
}

pub(crate) fn layer(
    store: &Arc<dyn RateLimitStore>,
    clock: &ManualClock,
    rules: impl IntoIterator<Item = Rule>,
) -> RateLimitLayer {
    RateLimitLayer::new(Arc::clone(store), rules).with_clock(Arc::new(clock.clone()))
}

/// How a limit stands for this client.
pub(crate) async fn look(
    store: &Arc<dyn RateLimitStore>,
    limiter: &'static str,
    key: impl Into<Key>,
    quota: Quota,
) -> Decision {
    let take = Take::new(limiter.parse().unwrap(), key, quota).with_cost(0);
    store.take(&[take]).await.unwrap()[0].decision
}
