//! Limiters around one another speak with one voice.

use std::sync::Arc;

use http::StatusCode;
use tower::ServiceBuilder;
use tower_warden::{
    ManualClock, Plan, Quota, RequireAuth,
    limit::{Charge, Rule},
};

use crate::support::{
    Gateway, header, inner, layer, limits, problem, request, send, statuses, stores,
};

#[tokio::test]
async fn the_lists_are_joined_and_the_tightest_speaks() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let service = ServiceBuilder::new()
            .layer(layer(&store, &clock, [Rule::per_ip("outer", Quota::per_minute(3))]))
            .layer(layer(&store, &clock, [Rule::per_ip("inner", Quota::per_hour(2))]))
            .service(inner());
        let response = send(&service, request()).await;
        let said = |name| header(response.headers(), name).unwrap();
        assert_eq!(said("ratelimit-policy"), r#""outer";q=3;w=60, "inner";q=2;w=3600"#);
        assert_eq!(said("ratelimit"), r#""outer";r=2;t=60, "inner";r=1;t=3600"#);
        assert_eq!(said("x-ratelimit-limit"), "2");
        assert_eq!(said("x-ratelimit-remaining"), "1");

        send(&service, request()).await;
        let refused = send(&service, request()).await;
        let said = |name| header(refused.headers(), name).unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(said("ratelimit"), r#""outer";r=0;t=60, "inner";r=0;t=3600"#);
        assert_eq!(said("x-ratelimit-limit"), "2", "the one that refuses speaks");
        assert_eq!(said("retry-after"), "3600");
        assert_eq!(problem(refused).await["violated-policies"], serde_json::json!(["inner"]));

        let refused = send(&service, request()).await;
        assert_eq!(limits(&refused), r#""outer";r=0;t=60"#, "the outer one refuses first");
        assert_eq!(header(refused.headers(), "retry-after"), Some("60"));
    }
}

#[tokio::test]
async fn an_outer_trial_is_settled_by_what_came_of_the_inner_one() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let login = Rule::per_ip("login", Quota::per_hour(5))
            .charging(Charge::status(StatusCode::UNAUTHORIZED));
        let service = ServiceBuilder::new()
            .layer(layer(&store, &clock, [login]))
            .layer(layer(&store, &clock, [Rule::per_ip("ip", Quota::per_minute(1))]))
            .service(inner());
        let guess = || request().header("x-answer", "401");
        let response = send(&service, guess()).await;
        assert_eq!(limits(&response), r#""login";r=4;t=3600, "ip";r=0;t=60"#);
        let refused = send(&service, guess()).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limits(&refused), r#""login";r=4;t=3600, "ip";r=0;t=60"#);
    }
}

#[tokio::test]
async fn users_and_strangers_are_told_apart_by_one_authenticator() {
    let clock = ManualClock::new();
    for store in stores(&clock) {
        let users = Rule::per_user("user", Quota::per_minute(9))
            .with_plan(Plan::PAID, Quota::per_minute(2));
        let strangers =
            Rule::per_ip("ip", Quota::per_minute(2)).when(|request| request.identity().is_none());
        let auth = RequireAuth::new(Arc::new(Gateway));
        let service = ServiceBuilder::new()
            .layer(auth.identify_only())
            .layer(layer(&store, &clock, [users, strangers]))
            .layer(auth)
            .service(inner());
        let paying = || request().header("x-user", "ada").header("x-plan", "paid");
        assert_eq!(statuses(&service, request).await, [401, 401, 429]);
        assert_eq!(statuses(&service, paying).await, [200, 200, 429]);
        assert_eq!(statuses(&service, request).await, [429]);
    }
}
