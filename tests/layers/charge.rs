//! Requests that count only where they failed: taken before, given back after.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{sync::Semaphore, task::yield_now};
use tower::{Layer, Service, ServiceExt};
use tower_warden::{
    Answer, ClientIp, ManualClock, Quota, StoreError,
    limit::{
        Charge, Decision, RateLimitStore, Rule,
        store::{Decisions, Hold, Take},
    },
    store::memory::MemoryRateLimitStore,
};

use crate::support::{
    Later, header, inner, layer, limits, look, memory, request, send, statuses, stores,
};

const QUOTA: Quota = Quota::per_minute(3);

/// Counts answers with 401.
fn guesses() -> Rule {
    Rule::per_ip("login", QUOTA).charging(Charge::status(StatusCode::UNAUTHORIZED))
}

async fn remaining(store: &Arc<dyn RateLimitStore>) -> u32 {
    look(store, "login", client(), QUOTA).await.remaining()
}

fn client() -> ClientIp {
    ClientIp::from(std::net::IpAddr::from([203, 0, 113, 9]))
}

/// The wait that a refusal names: a second where others may still be given back.
async fn wait(store: &Arc<dyn RateLimitStore>) -> Option<Duration> {
    let take = Take::new("login".parse().unwrap(), client(), QUOTA).with_cost(3);
    store.take(&[take]).await.unwrap()[0].decision.retry_after()
}

async fn settled() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test]
async fn only_what_failed_counts_and_the_headers_tell_how_it_ended() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [guesses()]).layer(inner());
        for (answer, status, said) in [
            ("200", 200, r#""login";r=3;t=60"#),
            ("401", 401, r#""login";r=2;t=60"#),
            ("500", 500, r#""login";r=2;t=60"#),
            ("401", 401, r#""login";r=1;t=60"#),
            ("401", 401, r#""login";r=0;t=60"#),
            ("200", 429, r#""login";r=0;t=60"#),
        ] {
            let response = send(&service, request().header("x-answer", answer)).await;
            assert_eq!((response.status().as_u16(), limits(&response)), (status, said));
        }
    }
}

#[tokio::test]
async fn a_rule_that_charges_and_one_that_does_not_stand_side_by_side() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let all = Rule::per_ip("ip", Quota::per_minute(2));
        let service = layer(&store, &clock, [all, guesses()]).layer(inner());
        for (answer, said) in [
            ("200", r#""ip";r=1;t=60, "login";r=3;t=60"#),
            ("401", r#""ip";r=0;t=60, "login";r=2;t=60"#),
            ("401", r#""ip";r=0;t=60, "login";r=2;t=60"#),
        ] {
            let response = send(&service, request().header("x-answer", answer)).await;
            assert_eq!(limits(&response), said);
        }
    }
}

#[tokio::test]
async fn what_a_request_weighs_is_given_back_whole() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        for (cost, answer, left) in [(3, "200", 3), (0, "401", 3), (2, "401", 1)] {
            let rule = guesses().with_cost(move |_| cost);
            let service = layer(&store, &clock, [rule]).layer(inner());
            send(&service, request().header("x-answer", answer)).await;
            assert_eq!(remaining(&store).await, left, "{cost}");
        }
    }
}

#[tokio::test]
async fn parallel_guesses_cannot_share_the_last_attempt() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [guesses()]).layer(inner());
        assert_eq!(statuses(&service, || request().header("x-answer", "401")).await, [401, 401]);

        let never = layer(&store, &clock, [guesses()])
            .layer(tower::service_fn(async |_: Request<()>| pending::<Answered>().await));
        let mut first = pin!(never.oneshot(request().body(()).unwrap()));
        poll_some(first.as_mut());
        let refused = send(&service, request()).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(refused.headers(), "retry-after"), Some("1"), "it may be given back");
    }
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

fn poll_some(mut future: std::pin::Pin<&mut impl Future>) {
    for _ in 0..10 {
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_stays_counted() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = layer(&store, &clock, [guesses()])
            .layer(tower::service_fn(async |_: Request<()>| pending::<Answered>().await));
        let mut call = Box::pin(service.oneshot(request().body(()).unwrap()));
        poll_some(call.as_mut());
        assert_eq!(wait(&store).await, Some(Duration::from_secs(1)), "in flight");
        drop(call);
        settled().await;
        assert_eq!(remaining(&store).await, 2);
        assert_eq!(wait(&store).await, Some(Duration::from_secs(60)), "for good");
    }
}

#[tokio::test]
async fn a_request_whose_handler_panics_stays_counted() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let limit = layer(&store, &clock, [guesses()]);
        let in_future = limit.layer(tower::service_fn(async |request: Request<()>| {
            assert_eq!(request.uri(), "*", "a handler's panic");
            Answered::Ok(Response::default())
        }));
        let call = in_future.oneshot(request().body(()).unwrap());
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
        let in_call =
            limit.layer(tower::service_fn(|_: Request<()>| -> std::future::Ready<Answered> {
                panic!("a service's panic")
            }));
        let call = in_call.oneshot(request().body(()).unwrap());
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
        settled().await;
        assert_eq!(remaining(&store).await, 1);
        assert_eq!(wait(&store).await, Some(Duration::from_secs(60)));
    }
}

#[tokio::test]
async fn a_request_that_ends_in_an_error_stays_counted() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service =
            layer(&store, &clock, [guesses()]).layer(tower::service_fn(async |_: Request<()>| {
                Err::<Response<Full<Bytes>>, _>("no response")
            }));
        service.oneshot(request().body(()).unwrap()).await.unwrap_err();
        settled().await;
        assert_eq!(remaining(&store).await, 2);
        assert_eq!(wait(&store).await, Some(Duration::from_secs(60)));
    }
}

/// Takes at once, and settles when it is let.
#[derive(Clone, Debug)]
struct Gated {
    store: MemoryRateLimitStore,
    gate: Arc<Semaphore>,
}

impl RateLimitStore for Gated {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        self.store.take(takes)
    }

    fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let this = self.clone();
        Answer::pending(async move {
            this.gate.acquire().await.map_err(StoreError::internal)?.forget();
            this.store.settle(hold, keep).await
        })
    }
}

#[tokio::test]
async fn settling_is_carried_through_though_the_client_hangs_up() {
    let clock = ManualClock::new();
    let gate = Arc::new(Semaphore::new(0));
    let gated = Gated { store: memory(&clock), gate: Arc::clone(&gate) };
    let store: Arc<dyn RateLimitStore> = Arc::new(gated);
    let service = layer(&store, &clock, [guesses()]).layer(inner());
    let mut call = Box::pin(service.oneshot(request().body(()).unwrap()));
    poll_some(call.as_mut());
    drop(call);
    assert_eq!(remaining(&store).await, 2);
    gate.add_permits(1);
    settled().await;
    assert_eq!(remaining(&store).await, 3, "it ended well, so it is given back");
}

#[test]
fn no_runtime_is_needed() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let mut service = layer(&store, &clock, [guesses()]).layer(inner());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(service.poll_ready(cx).is_ready());
        let mut call = pin!(service.call(request().body(()).unwrap()));
        let response = (0..10).find_map(|_| match call.as_mut().poll(cx) {
            Poll::Ready(response) => Some(response.unwrap()),
            Poll::Pending => None,
        });
        assert_eq!(limits(&response.unwrap()), r#""login";r=3;t=60"#);
    }
}

/// Takes, and can't settle.
#[derive(Clone, Debug)]
struct Unsettled(MemoryRateLimitStore);

impl RateLimitStore for Unsettled {
    fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        self.0.take(takes)
    }

    fn settle(&self, _: Hold, _: bool) -> Answer<Result<Decision, StoreError>> {
        Answer::Ready(Err(StoreError::unavailable("gone meanwhile")))
    }
}

#[tokio::test]
async fn a_store_that_fails_meanwhile_spoils_no_response() {
    let clock = ManualClock::new();
    let store = Unsettled(memory(&clock));
    let stores: [Arc<dyn RateLimitStore>; 2] = [Arc::new(store.clone()), Arc::new(Later(store))];
    for (store, said) in stores.iter().zip([r#""login";r=2;t=60"#, r#""login";r=1;t=60"#]) {
        let response = send(&layer(store, &clock, [guesses()]).layer(inner()), request()).await;
        assert_eq!((response.status(), limits(&response)), (StatusCode::OK, said));
    }
}
