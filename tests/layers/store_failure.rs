//! What becomes of requests while the store can't decide.

use std::sync::Arc;

use http::StatusCode;
use tower::{Layer, ServiceBuilder};
use tower_warden::{
    Answer, ManualClock, Quota, StoreError,
    limit::{
        Charge, Decision, OnFailure, RateLimitStore, Rule,
        store::{Decisions, Hold, Take},
    },
};

use crate::support::{
    Later, header, inner, layer, limits, memory, problem, request, send, statuses,
};

#[derive(Clone, Debug)]
pub(crate) struct Gone;

impl RateLimitStore for Gone {
    fn take(&self, _: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        Answer::Ready(Err(StoreError::unavailable("connection refused")))
    }

    fn settle(&self, _: Hold, _: bool) -> Answer<Result<Decision, StoreError>> {
        unreachable!("nothing was taken")
    }
}

fn gone() -> [Arc<dyn RateLimitStore>; 2] {
    [Arc::new(Gone), Arc::new(Later(Gone))]
}

fn rules() -> [Rule; 2] {
    let quota = Quota::per_minute(1);
    [
        Rule::per_ip("ip", quota),
        Rule::per_ip("login", quota).charging(Charge::status(StatusCode::UNAUTHORIZED)),
    ]
}

#[tokio::test]
async fn requests_pass_without_headers_unless_told_otherwise() {
    for store in gone() {
        let service = layer(&store, &ManualClock::new(), rules()).layer(inner());
        assert_eq!(statuses(&service, request).await, [200, 200]);
        let response = send(&service, request()).await;
        for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "retry-after"] {
            assert_eq!(header(response.headers(), name), None);
        }
    }
}

#[tokio::test]
async fn requests_are_refused_with_503_where_nothing_may_pass_uncounted() {
    for store in gone() {
        let layer = layer(&store, &ManualClock::new(), rules()).with_on_failure(OnFailure::Deny);
        let response = send(&layer.layer(inner()), request()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(response.headers(), "retry-after"), Some("1"));
        assert_eq!(limits(&response), "none");
        assert_eq!(problem(response).await["code"], "unavailable");
    }
}

#[tokio::test]
async fn a_limiter_that_can_decide_still_speaks() {
    let clock = ManualClock::new();
    for gone in gone() {
        let here: Arc<dyn RateLimitStore> = Arc::new(memory(&clock));
        let service = ServiceBuilder::new()
            .layer(layer(&gone, &clock, [Rule::per_ip("outer", Quota::per_minute(9))]))
            .layer(layer(&here, &clock, [Rule::per_ip("inner", Quota::per_minute(2))]))
            .layer(layer(&gone, &clock, [Rule::per_ip("inmost", Quota::per_minute(9))]))
            .service(inner());
        assert_eq!(limits(&send(&service, request()).await), r#""inner";r=1;t=60"#);
        assert_eq!(statuses(&service, request).await, [200, 429]);
    }
}
